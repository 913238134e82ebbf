//! Where the lines and log records of workers are handed to user code, or printed with whose they are: on a thread of its own,
//! in the order in which they came.

use executor_core::{
    blocking,
    panic::{catch, drop_quietly},
};
use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use crate::{
    announcer::CallbackThread,
    echo::write_all,
    inbox::Shared,
    output::{Output, OutputLine, OutputStream, Speaker},
};

/// With so many bytes still to be told, workers are no longer read, and wait as they write.
const FULL_BYTES: usize = 1 << 20;

/// What each item takes besides its text, roughly.
const ITEM_BYTES: usize = 256;

/// Tells on a thread of its own, which starts with the first item.
pub(crate) struct Teller {
    shared: Arc<Shared>,
    thread: Option<(mpsc::Sender<Item>, JoinHandle<()>)>,
    untold_bytes: Arc<AtomicUsize>,
}

enum Item {
    Line(OutputLine),
    Record(Speaker, Vec<u8>),
}

impl Teller {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Teller { shared: Arc::clone(shared), thread: None, untold_bytes: Arc::default() }
    }

    /// Whether workers are to wait until more is told. The driver is woken when that is so.
    pub(crate) fn is_full(&self) -> bool {
        // ORDERING: SeqCst, as all of `untold_bytes`; the wake-up that may follow goes through the inbox's lock.
        self.untold_bytes.load(Ordering::SeqCst) >= FULL_BYTES
    }

    pub(crate) fn line(&mut self, speaker: &Speaker, stream: OutputStream, text: String) {
        let (task, submitted_at) = speaker.task.unzip();
        let worker = Arc::clone(&speaker.name);
        self.tell(Item::Line(OutputLine { pid: speaker.pid, worker, stream, task, submitted_at, text }));
    }

    /// A frame's body, to be read where it is told.
    pub(crate) fn record(&mut self, speaker: Speaker, body: Vec<u8>) {
        self.tell(Item::Record(speaker, body));
    }

    fn tell(&mut self, item: Item) {
        if self.thread.is_none() {
            self.thread = self.start();
        }
        match &self.thread {
            Some((sender, _)) => {
                self.untold_bytes.fetch_add(item.bytes(), Ordering::SeqCst);
                // The thread lives until its channel hangs up.
                let _ = sender.send(item);
            }
            // No thread is to be had: here, where it holds up others, rather than never.
            None => item.perform(&self.shared),
        }
    }

    fn start(&self) -> Option<(mpsc::Sender<Item>, JoinHandle<()>)> {
        let (sender, receiver) = mpsc::channel::<Item>();
        let (shared, untold_bytes) = (Arc::clone(&self.shared), Arc::clone(&self.untold_bytes));
        let run = move || {
            // So that a function that shuts this pool down does not wait for itself.
            let _entered = blocking::enter(Rc::new(CallbackThread(shared.home)));
            for item in receiver {
                let bytes = item.bytes();
                item.perform(&shared);
                let before = untold_bytes.fetch_sub(bytes, Ordering::SeqCst);
                if before >= FULL_BYTES && before - bytes < FULL_BYTES {
                    shared.order(|_| ()); // the driver may read again
                }
            }
        };
        let name = format!("{}-output", self.shared.chosen.name_prefix);
        thread::Builder::new().name(name).spawn(run).ok().map(|thread| (sender, thread))
    }
}

impl Item {
    fn bytes(&self) -> usize {
        ITEM_BYTES
            + match self {
                Item::Line(line) => line.text.len(),
                Item::Record(_, body) => body.len(),
            }
    }

    fn perform(self, shared: &Shared) {
        match (self, &shared.chosen.output) {
            (Item::Line(line), Output::Capture(function)) => {
                // A panic has been printed, and is nobody's result.
                if let Err(panic) = catch(|| function(line)) {
                    drop_quietly(panic);
                }
            }
            (Item::Line(line), _) => {
                let whole = format!("{line}\n");
                match line.stream {
                    OutputStream::Stdout => write_all(rustix::stdio::stdout(), whole.as_bytes()),
                    OutputStream::Stderr => write_all(rustix::stdio::stderr(), whole.as_bytes()),
                }
            }
            (Item::Record(speaker, body), _) => drop(catch(|| shared.chosen.records.take(&speaker, &body))),
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            // Panics are contained, so there is none to pass on.
            let _ = thread.join();
        }
    }
}
