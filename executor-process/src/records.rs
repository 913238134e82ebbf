//! Log records on their way from a worker process to its parent's logger, for the features `log` and `tracing`.
//!
//! In a worker, a logger and a subscriber are installed that send each record up at once. In the parent, the pool's teller
//! hands it to whatever logger or subscriber is there. Without the features, and in a program without a logger, nothing
//! is installed and nothing is sent.
//!
//! A `tracing` event comes out with what its own callsite says (level, target, name, place, fields), and the identity of its
//! call beside them. Such a callsite is made and kept once for each that is met, of which a program has as many as there
//! are in its source. (`value_set_all`, by which its fields get their values, is hidden in `tracing-core`'s documentation, as
//! all is that `tracing`'s own macros expand to.) Its span is the one in which its call was submitted, which is kept open
//! until the call is over and all that it said is told. A worker's own spans stay behind: the parent's subscriber does not
//! know them.

use executor_core::task::Luggage;

use crate::output::Speaker;

/// Where a call that is submitted now comes from: what its records are to be told with.
pub(crate) fn origin() -> Option<Luggage> {
    #[cfg(feature = "tracing")]
    return events::current_span();
    #[cfg(not(feature = "tracing"))]
    None
}

/// Up to which levels records are wanted: of `log`, and of `tracing`. From 0, none, to 5, all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Levels([u8; 2]);

impl Levels {
    /// What this process wants now.
    pub(crate) fn wanted() -> Levels {
        Levels([
            #[cfg(feature = "log")]
            logs::wanted(),
            #[cfg(not(feature = "log"))]
            0,
            #[cfg(feature = "tracing")]
            events::wanted(),
            #[cfg(not(feature = "tracing"))]
            0,
        ])
    }

    pub(crate) fn are_none(self) -> bool {
        self.0 == [0; 2]
    }

    pub(crate) fn bytes(self) -> [u8; 2] {
        self.0
    }
}

/// The worker: sends records up to these levels from now on, unless somebody has a logger of their own here.
pub(crate) fn install(levels: &[u8]) {
    let &[logs, events] = levels else { return };
    #[cfg(feature = "log")]
    if logs > 0 {
        logs::install(logs);
    }
    #[cfg(feature = "tracing")]
    if events > 0 {
        events::install(events);
    }
    let _ = (logs, events);
}

/// The parent's place for records, where it may be that of one thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Here {
    #[cfg(feature = "tracing")]
    subscriber: Option<tracing_core::Dispatch>,
}

impl Here {
    pub(crate) fn find() -> Here {
        Here {
            #[cfg(feature = "tracing")]
            subscriber: events::here(),
        }
    }

    /// Hands a record that came from a worker to the logger or the subscriber. Runs user code.
    pub(crate) fn take(&self, speaker: &Speaker, body: &[u8]) {
        let Some((mark, record)) = body.split_first() else { return };
        #[cfg(feature = "log")]
        if *mark == logs::MARK {
            return logs::take(speaker, record);
        }
        #[cfg(feature = "tracing")]
        if *mark == events::MARK {
            return events::take(self.subscriber.as_ref(), speaker, record);
        }
        // Of a feature that the same build does not have: there is none.
        let _ = (speaker, mark, record);
    }
}

/// A record's body: its mark, and the record.
#[cfg(any(feature = "log", feature = "tracing"))]
fn tell<T: serde::Serialize + 'static>(mark: u8, record: &T) {
    let mut body = vec![mark];
    if executor_core::codec::encode(record, &mut body).is_ok() {
        crate::uplink::tell(crate::wire::Kind::Record, &body);
    }
}

#[cfg(feature = "log")]
mod logs {
    use executor_core::codec;
    use log::{LevelFilter, Log, Metadata};
    use serde::{Deserialize, Serialize};

    use super::{Speaker, tell};

    pub(super) const MARK: u8 = 1;

    #[derive(Serialize, Deserialize)]
    struct Record {
        level: u8,
        target: String,
        message: String,
        module: Option<String>,
        file: Option<String>,
        line: Option<u32>,
    }

    pub(super) fn wanted() -> u8 {
        log::max_level() as u8
    }

    fn filter(level: u8) -> LevelFilter {
        LevelFilter::iter().nth(level.into()).unwrap_or(LevelFilter::Trace)
    }

    /// Sends records up.
    struct Up;

    impl Log for Up {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.level() <= log::max_level()
        }

        fn log(&self, record: &log::Record<'_>) {
            if !self.enabled(record.metadata()) {
                return;
            }
            let record = Record {
                level: record.level() as u8,
                target: record.target().into(),
                message: record.args().to_string(),
                module: record.module_path().map(Into::into),
                file: record.file().map(Into::into),
                line: record.line(),
            };
            tell(MARK, &record);
        }

        fn flush(&self) {}
    }

    pub(super) fn install(level: u8) {
        if log::set_logger(&Up).is_ok() {
            log::set_max_level(filter(level));
        }
    }

    pub(super) fn take(speaker: &Speaker, record: &[u8]) {
        let Ok(record) = codec::decode::<Record>(record) else { return };
        let Some(level) = filter(record.level).to_level() else { return };
        let logger = log::logger();
        let metadata = Metadata::builder().level(level).target(&record.target).build();
        if level > log::max_level() || !logger.enabled(&metadata) {
            return;
        }
        logger.log(
            &log::Record::builder()
                .metadata(metadata)
                .args(format_args!("{} [{speaker}]", record.message))
                .module_path(record.module.as_deref())
                .file(record.file.as_deref())
                .line(record.line)
                .build(),
        );
    }

    #[test]
    fn levels_are_numbers() {
        for level in log::Level::iter() {
            assert_eq!(filter(level as u8), level.to_level_filter());
        }
        assert_eq!(filter(0), LevelFilter::Off);
    }
}

#[cfg(feature = "tracing")]
mod events {
    use executor_core::{codec, panic::catch, sync::Mutex, task::Luggage};
    use serde::{Deserialize, Serialize};
    use std::{
        collections::HashMap,
        fmt,
        sync::{
            Arc, OnceLock,
            atomic::{AtomicBool, Ordering},
            mpsc,
        },
        thread,
    };
    use tracing_core::{
        Callsite, Dispatch, Event, Field, Kind, Level, LevelFilter, Metadata, Subscriber, callsite, dispatcher,
        field::{self, FieldSet, Value, Visit},
        identify_callsite,
        span::{Attributes, Id, Record},
        subscriber::{Interest, NoSubscriber},
    };

    use super::{Speaker, tell};

    pub(super) const MARK: u8 = 2;

    /// What tells callsites apart.
    #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    struct Site {
        level: u8,
        name: String,
        target: String,
        module: Option<String>,
        file: Option<String>,
        line: Option<u32>,
        fields: Vec<String>,
    }

    #[derive(Serialize, Deserialize)]
    struct Sent {
        site: Site,
        values: Vec<Told>,
    }

    /// A field's value.
    #[derive(Serialize, Deserialize)]
    enum Told {
        Bool(bool),
        I64(i64),
        U64(u64),
        I128(i128),
        U128(u128),
        F64(f64),
        Text(String),
        /// As `Debug` writes it.
        Debug(String),
    }

    fn number(level: Level) -> u8 {
        1 + LEVELS.iter().position(|one| *one == level).unwrap_or(LEVELS.len()) as u8
    }

    const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

    fn filter(level: u8) -> LevelFilter {
        usize::from(level).checked_sub(1).map_or(LevelFilter::OFF, |place| {
            LEVELS.get(place).copied().map_or(LevelFilter::TRACE, LevelFilter::from_level)
        })
    }

    pub(super) fn wanted() -> u8 {
        LevelFilter::current().into_level().map_or(0, number)
    }

    /// The subscriber of the thread that makes the pool. `None`: that of the program, whenever there is one.
    pub(super) fn here() -> Option<Dispatch> {
        dispatcher::get_default(|here| (!here.is::<NoSubscriber>()).then(|| here.clone()))
    }

    /// A span that is kept open, and whose it is.
    #[derive(Debug)]
    struct Span {
        subscriber: Dispatch,
        id: Id,
    }

    pub(super) fn current_span() -> Option<Luggage> {
        dispatcher::get_default(|here| {
            let current = here.current_span();
            let id = here.clone_span(current.id()?);
            Some(Arc::new(Span { subscriber: here.clone(), id }) as Luggage)
        })
    }

    /// Closing a span is user code, and whoever drops the last handle may hold a pool's lock: so it is closed on a thread kept for
    /// that, which starts with the first.
    impl Drop for Span {
        fn drop(&mut self) {
            static CLOSER: OnceLock<Option<mpsc::Sender<(Dispatch, Id)>>> = OnceLock::new();
            let closer = CLOSER.get_or_init(|| {
                let (sender, receiver) = mpsc::channel::<(Dispatch, Id)>();
                let close = move || {
                    for (subscriber, id) in receiver {
                        // Its panic has been printed, and is nobody's.
                        drop(catch(|| subscriber.try_close(id)));
                    }
                };
                thread::Builder::new().name("executor-spans".into()).spawn(close).ok().map(|_| sender)
            });
            // Without a thread it stays open, rather than be closed under a lock.
            let span = (self.subscriber.clone(), self.id.clone());
            closer.iter().for_each(|closer| _ = closer.send(span.clone()));
        }
    }

    /// Sends events up.
    struct Up {
        most: LevelFilter,
    }

    impl Subscriber for Up {
        fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
            if self.enabled(metadata) { Interest::always() } else { Interest::never() }
        }

        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.is_event() && *metadata.level() <= self.most
        }

        fn max_level_hint(&self) -> Option<LevelFilter> {
            Some(self.most)
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1) // none is enabled
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let metadata = event.metadata();
            let mut values = Values::default();
            event.record(&mut values);
            let site = Site {
                level: number(*metadata.level()),
                name: metadata.name().into(),
                target: metadata.target().into(),
                module: metadata.module_path().map(Into::into),
                file: metadata.file().map(Into::into),
                line: metadata.line(),
                fields: values.names,
            };
            tell(MARK, &Sent { site, values: values.told });
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[derive(Default)]
    struct Values {
        names: Vec<String>,
        told: Vec<Told>,
    }

    impl Values {
        fn put(&mut self, field: &Field, value: Told) {
            self.names.push(field.name().into());
            self.told.push(value);
        }
    }

    impl Visit for Values {
        fn record_bool(&mut self, field: &Field, value: bool) {
            self.put(field, Told::Bool(value));
        }

        fn record_i64(&mut self, field: &Field, value: i64) {
            self.put(field, Told::I64(value));
        }

        fn record_u64(&mut self, field: &Field, value: u64) {
            self.put(field, Told::U64(value));
        }

        fn record_i128(&mut self, field: &Field, value: i128) {
            self.put(field, Told::I128(value));
        }

        fn record_u128(&mut self, field: &Field, value: u128) {
            self.put(field, Told::U128(value));
        }

        fn record_f64(&mut self, field: &Field, value: f64) {
            self.put(field, Told::F64(value));
        }

        fn record_str(&mut self, field: &Field, value: &str) {
            self.put(field, Told::Text(value.into()));
        }

        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.put(field, Told::Debug(format!("{value:?}")));
        }
    }

    pub(super) fn install(level: u8) {
        // An error means that somebody has a subscriber here.
        let _ = dispatcher::set_global_default(Dispatch::new(Up { most: filter(level) }));
    }

    /// A callsite of another process, as this one's subscribers see it.
    struct Mirror {
        metadata: OnceLock<Metadata<'static>>,
        is_unwanted: AtomicBool,
    }

    impl Callsite for Mirror {
        fn set_interest(&self, interest: Interest) {
            // ORDERING: Relaxed; an answer that comes late was late as well as it was given.
            self.is_unwanted.store(interest.is_never(), Ordering::Relaxed);
        }

        fn metadata(&self) -> &Metadata<'_> {
            self.metadata.get().expect("it is set before anybody sees the callsite")
        }
    }

    /// The fields that each event gets here, before its own.
    const OURS: [&str; 3] = ["task.id", "task.submitted_at", "worker.pid"];

    fn mirror(site: Site) -> &'static Mirror {
        static KNOWN: Mutex<Option<HashMap<Site, &'static Mirror>>> = Mutex::new(None);
        if let Some(known) = KNOWN.lock().get_or_insert_default().get(&site) {
            return known;
        }
        let made: &'static Mirror =
            Box::leak(Box::new(Mirror { metadata: OnceLock::new(), is_unwanted: AtomicBool::new(false) }));
        let kept = |text: String| -> &'static str { text.leak() };
        let key = site.clone();
        let names: Vec<&'static str> = OURS.into_iter().chain(site.fields.into_iter().map(kept)).collect();
        let _ = made.metadata.set(Metadata::new(
            kept(site.name),
            kept(site.target),
            filter(site.level).into_level().unwrap_or(Level::ERROR),
            site.file.map(kept),
            site.line,
            site.module.map(kept),
            FieldSet::new(names.leak(), identify_callsite!(made)),
            Kind::EVENT,
        ));
        // Asks every subscriber, which is user code: outside of the lock. Only the thread of a pool comes here, and two pools
        // that meet the same callsite at the same time keep one mirror each.
        callsite::register(made);
        KNOWN.lock().get_or_insert_default().insert(key, made);
        made
    }

    pub(super) fn take(subscriber: Option<&Dispatch>, speaker: &Speaker, event: &[u8]) {
        let Ok(Sent { site, values }) = codec::decode::<Sent>(event) else { return };
        let span = speaker.origin.as_ref().and_then(|origin| origin.downcast_ref::<Span>());
        // A span means something to its own subscriber only.
        match span.map(|span| &span.subscriber).or(subscriber) {
            Some(subscriber) => dispatcher::with_default(subscriber, || emit(site, &values, speaker, span)),
            None => emit(site, &values, speaker, span),
        }
    }

    fn emit(site: Site, values: &[Told], speaker: &Speaker, span: Option<&Span>) {
        let mirror = mirror(site);
        let Some(metadata) = mirror.metadata.get() else { return };
        // ORDERING: Relaxed; see `set_interest`.
        if mirror.is_unwanted.load(Ordering::Relaxed) || *metadata.level() > LevelFilter::current() {
            return;
        }
        let id = speaker.task.map(|(id, _)| id.number());
        let submitted_at = speaker.task.map(|(_, site)| field::display(site));
        let debugs: Vec<_> = values.iter().map(|value| field::display(value.text())).collect();
        let own = values.iter().zip(&debugs).map(|(value, debug)| Some(value.value(debug)));
        let ours: [Option<&dyn Value>; 3] = [
            id.as_ref().map(|id| id as &dyn Value),
            submitted_at.as_ref().map(|site| site as &dyn Value),
            Some(&speaker.pid),
        ];
        let all: Vec<_> = ours.into_iter().chain(own).collect();
        dispatcher::get_default(|here| {
            if here.enabled(metadata) {
                let values = metadata.fields().value_set_all(&all);
                let parent = span.map(|span| span.id.clone());
                here.event(&Event::new_child_of(parent, metadata, &values));
            }
        });
    }

    impl Told {
        fn text(&self) -> &str {
            if let Told::Debug(text) = self { text } else { "" }
        }

        fn value<'a>(&'a self, debug: &'a field::DisplayValue<&'a str>) -> &'a dyn Value {
            match self {
                Told::Bool(value) => value,
                Told::I64(value) => value,
                Told::U64(value) => value,
                Told::I128(value) => value,
                Told::U128(value) => value,
                Told::F64(value) => value,
                Told::Text(value) => value,
                Told::Debug(_) => debug,
            }
        }
    }

    #[test]
    fn levels_are_numbers() {
        for level in LEVELS {
            assert_eq!(filter(number(level)), LevelFilter::from_level(level));
        }
        assert_eq!(filter(0), LevelFilter::OFF);
    }
}
