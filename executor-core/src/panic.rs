//! User code's panics, caught where it is called and turned into data.
//!
//! A panic's location and backtrace exist only inside the panic hook, so a hook is put in front of
//! the one that is installed, which still runs: the message is printed as it always is. A program
//! that installs its own hook later loses the location, nothing else.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    cell::{Cell, RefCell},
    fmt,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    sync::Once,
};

use crate::error::{Failure, Panic};

thread_local! {
    static CATCHING: Cell<usize> = const { Cell::new(0) };
    static LATEST: RefCell<Option<Origin>> = const { RefCell::new(None) };
    /// Whether `LATEST` is set: cheaper to ask for than `LATEST`, which has a destructor.
    static IS_SET: Cell<bool> = const { Cell::new(false) };
}

struct Origin {
    location: Option<String>,
    backtrace: Option<String>,
}

/// Calls user code. Its panic becomes [`Failure::Panicked`].
///
/// What `call` captured may be left half-changed by a panic; callers hand over what they own and do
/// not look at it again.
///
/// # Errors
/// When `call` panics.
pub fn catch<T>(call: impl FnOnce() -> T) -> Result<T, Failure> {
    static HOOK: Once = Once::new();
    HOOK.call_once(install_hook);
    CATCHING.set(CATCHING.get() + 1);
    forget_contained();
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    CATCHING.set(CATCHING.get() - 1);
    result.map_err(|payload| {
        let origin = LATEST.take();
        let message = message_of(&*payload as &dyn Any);
        // A payload is user data as well, and may panic as it is dropped. That second payload is
        // leaked: nobody is left to whom it could be told.
        if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(second);
        }
        let (location, backtrace) = origin.map_or((None, None), |origin| (origin.location, origin.backtrace));
        Failure::Panicked(Panic { message, location, backtrace })
    })
}

/// A panic that was caught, and is to go on elsewhere.
pub struct Unwinding {
    payload: Box<dyn Any + Send>,
    origin: Option<Origin>,
}

/// As [`catch`], for a panic that is to [go on](Unwinding::resume), perhaps on another thread.
///
/// # Errors
/// When `call` panics.
pub fn catch_unwinding<T>(call: impl FnOnce() -> T) -> Result<T, Unwinding> {
    CATCHING.set(CATCHING.get() + 1);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    CATCHING.set(CATCHING.get() - 1);
    result.map_err(|payload| {
        IS_SET.set(false);
        Unwinding { payload, origin: LATEST.take() }
    })
}

impl Unwinding {
    /// Lets it go on from here. Its message has been printed.
    pub fn resume(self) -> ! {
        IS_SET.set(self.origin.is_some());
        LATEST.set(self.origin);
        panic::resume_unwind(self.payload)
    }
}

impl fmt::Debug for Unwinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unwinding").field("message", &message_of(&*self.payload as &dyn Any)).finish_non_exhaustive()
    }
}

/// Keeps the place of the panic for which this thread unwinds from what is called meanwhile, until it is dropped.
#[must_use = "the place is kept for as long as this lives"]
pub struct KeptOrigin(Option<Origin>);

/// See [`KeptOrigin`].
pub fn keep_origin() -> KeptOrigin {
    KeptOrigin(if IS_SET.replace(false) { LATEST.take() } else { None })
}

impl Drop for KeptOrigin {
    fn drop(&mut self) {
        IS_SET.set(self.0.is_some());
        LATEST.set(self.0.take());
    }
}

impl fmt::Debug for KeptOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptOrigin").finish_non_exhaustive()
    }
}

/// Between two calls under one guard: forgets the place of a panic that the first one caught by itself.
#[inline]
pub(crate) fn forget_contained() {
    if IS_SET.replace(false) {
        LATEST.set(None);
    }
}

/// Drops user data. A panic from its `Drop` is printed by the hook and goes no further: there is no
/// outcome left that it could be.
pub fn drop_quietly<T>(value: T) {
    if !std::mem::needs_drop::<T>() {
        return;
    }
    let contained = catch(|| drop(value));
    drop(contained);
}

fn install_hook() {
    if std::thread::panicking() {
        return; // the standard library refuses to change hooks now; locations are lost
    }
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if CATCHING.get() > 0 {
            let backtrace = Backtrace::capture();
            let origin = Origin {
                location: info.location().map(ToString::to_string),
                backtrace: (backtrace.status() == BacktraceStatus::Captured)
                    .then(|| of_the_call(backtrace.to_string())),
            };
            LATEST.set(Some(origin));
            IS_SET.set(true);
        }
        previous(info);
    }));
}

/// The panic that a hook of a backend's own is told of, without a backtrace.
#[must_use]
pub fn describe(info: &PanicHookInfo<'_>) -> Panic {
    Panic { message: message_of(info.payload()), location: info.location().map(ToString::to_string), backtrace: None }
}

/// The frames from where the call panicked to where it was made, which are the user's. All of them where that cannot be told,
/// as in a program without symbols, and where they are asked for.
fn of_the_call(text: String) -> String {
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|how| how == "full") {
        return text;
    }
    // A frame is a line with its number, and perhaps one that says where.
    let mut frames: Vec<String> = Vec::new();
    for line in text.lines() {
        match frames.last_mut() {
            Some(frame) if line.trim_start().starts_with("at ") => *frame += &format!("\n{line}"),
            _ => frames.push(line.to_owned()),
        }
    }
    // Such as `  12: <path::of::a::Type as Trait>::method`.
    let begins = |frame: &str, paths: &[&str]| {
        let name = frame.split_once(": ").map_or(frame, |(_, name)| name).trim_start().trim_start_matches('<');
        paths.iter().any(|path| name.starts_with(path))
    };
    let raises =
        |frame: &String| begins(frame, &["core::panicking::", "__rustc::rust_begin_unwind", "rust_begin_unwind"]);
    // What was inlined has a name without a path; but there is its place, which is this crate's.
    let makes = |frame: &String| {
        begins(frame, &["executor_core::", "executor_thread::", "executor_process::"]) || frame.contains(own_sources())
    };
    let Some(first) = frames.iter().position(raises) else { return text };
    let first = first + frames[first..].iter().take_while(|frame| raises(frame)).count();
    let length = frames[first..].iter().position(makes).unwrap_or(frames.len() - first);
    if length == 0 { text } else { frames[first..first + length].join("\n") }
}

/// Where the sources of this crate lie, as the compiler was told.
fn own_sources() -> &'static str {
    file!().trim_end_matches("panic.rs")
}

fn message_of(payload: &dyn Any) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a value that is no text".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panic_of(call: impl FnOnce()) -> Panic {
        match catch(call) {
            Err(Failure::Panicked(panic)) => panic,
            other => panic!("expected a panic, got {other:?}"),
        }
    }

    #[test]
    fn a_panic_keeps_its_message_and_its_place() {
        let line = line!() + 1;
        let panic = panic_of(|| panic!("boom {}", 5));
        assert_eq!(panic.message, "boom 5");
        let location = panic.location.expect("the hook is installed");
        assert!(location.contains(&format!("panic.rs:{line}:")), "{location}");
    }

    /// A panic that one call contained by itself is not told of a silent one of the next.
    #[test]
    fn a_contained_panic_leaves_no_trace() {
        let contains = catch(|| panic::catch_unwind(|| panic!("contained")).is_err());
        assert!(contains.unwrap());
        let silent = panic_of(|| panic::resume_unwind(Box::new("silent")));
        assert_eq!((silent.message.as_str(), silent.location), ("silent", None));
    }

    /// FUT-10: whether names have paths, as in a program as it is developed, or only places, as where they were inlined.
    #[test]
    fn a_backtrace_ends_where_the_call_was_made() {
        let own = own_sources();
        for made in
            ["10: executor_core::work::Single<F>::run".to_owned(), format!("call<u32>\n     at ./{own}work.rs:36:9")]
        {
            let frames = ["5: rust_begin_unwind", "6: core::panicking::panic_fmt", "7: deep\n     at src/main.rs:1:2"];
            let all = frames.iter().copied().chain([&*made, "12: main"]).collect::<Vec<_>>().join("\n");
            assert_eq!(of_the_call(all), frames[2]);
        }
        let unknown = "1: main\n2: start";
        assert_eq!(of_the_call(unknown.to_owned()), unknown);
    }

    #[test]
    fn any_payload_is_contained() {
        struct DropsBadly;
        impl Drop for DropsBadly {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert_eq!(panic_of(|| panic::panic_any(DropsBadly)).message, "a value that is no text");
        drop_quietly(DropsBadly);
        assert_eq!(catch(|| 7).unwrap(), 7);
    }
}
