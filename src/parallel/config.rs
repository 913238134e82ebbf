//! Choices for all parallel calls of a thread, as long as a call lasts.

use std::cell::RefCell;

use super::{Choices, Parallel};

thread_local! {
    /// The innermost last, each with what it inherits.
    static AROUND: RefCell<Vec<Choices>> = const { RefCell::new(Vec::new()) };
}

/// Has every [`Parallel`] that this thread uses in `call` make the choices of `choices`, where it makes none of its own.
///
/// Within another one, what is not chosen is inherited. Other threads, and calls that are made in parallel, are not
/// concerned.
///
/// # Examples
/// ```
/// use concurrent_futures::parallel::{Parallel, delayed, parallel_config};
///
/// fn library() -> Vec<u32> {
///     Parallel::new().run((0..3).map(|x| delayed(|x: u32| x * x)(x))).unwrap()
/// }
///
/// let squares = parallel_config(Parallel::new().n_jobs(2).backend("threading"), library);
/// assert_eq!(squares, [0, 1, 4]);
/// ```
pub fn parallel_config<T>(choices: Parallel, call: impl FnOnce() -> T) -> T {
    /// Also when the call panics.
    struct Leave;

    impl Drop for Leave {
        fn drop(&mut self) {
            let left = AROUND.with_borrow_mut(Vec::pop);
            drop(left);
        }
    }

    let choices = choices.choices.or(&around());
    AROUND.with_borrow_mut(|around| around.push(choices));
    let _leave = Leave;
    call()
}

/// What is chosen around here.
pub(super) fn around() -> Choices {
    AROUND.with_borrow(|around| around.last().cloned()).unwrap_or_default()
}
