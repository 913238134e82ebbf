//! What a task is to do: the kinds of call, and how each is made here. How they travel is in `travel.rs`.
//!
//! | kind | made by | travels |
//! |---|---|---|
//! | [`Closure`] | `ThreadPoolExecutor::spawn` | no |
//! | [`Single`] | `submit`, `submit_with` | yes |
//! | [`Many`] | `map`, `map_with`: a chunk of items | yes, item by item |

use std::{
    any,
    marker::PhantomData,
    time::{Duration, Instant},
};

use crate::{
    attachments::Encoded,
    call::Call,
    current::current_task,
    error::Failure,
    function::Function,
    observe,
    outcomes::Outcomes,
    panic::{catch, forget_contained},
    value::Value,
};

/// Something to do, and how its outcome comes back.
pub(crate) trait Work: Sized + Send + 'static {
    type Output: Send + 'static;

    /// How it travels. `None`: it stays in this process. Without the feature `transport`, all do.
    const TRAVEL: Option<Travel<Self>> = None;

    /// Does it here. May panic.
    fn run(self) -> Self::Output;

    /// A failure that an output tells of, which is that of the whole call.
    fn failure_in(_: &Self::Output) -> Option<&Failure> {
        None
    }

    /// The first failure that an output tells of, of a part of the call or of all of it.
    fn first_failure(_: &Self::Output) -> Option<&Failure> {
        None
    }

    /// What is called, for those who observe.
    fn function(&self) -> observe::Function;
}

/// What is done with work that leaves this process, or is to be done once more.
pub(crate) struct Travel<W: Work> {
    /// Turns it into bytes. May panic in user code.
    pub(crate) pack: fn(W) -> Result<Call, Failure>,
    /// The outcome that a reply holds. May panic in user code.
    pub(crate) unpack: fn(Encoded) -> Result<W::Output, Failure>,
    /// The same once more, for another attempt. May panic in user code.
    pub(crate) copy: fn(&W) -> Result<W, Failure>,
    /// The failure that a reply tells of. Runs no user code.
    pub(crate) failure: fn(&[u8]) -> Option<Failure>,
    /// The same, or as [`Work::first_failure`] in the reply's value. Runs no user code.
    pub(crate) first_failure: fn(&[u8]) -> Option<Failure>,
    /// The same, or as [`Work::failure_in`] in the reply's value. Runs no user code.
    pub(crate) failure_of_all: fn(&[u8]) -> Option<Failure>,
}

/// One call.
pub(crate) struct Single<F, A> {
    pub(crate) function: F,
    pub(crate) args: A,
}

impl<A: Value, F: Function<A, Output: Value>> Work for Single<F, A> {
    type Output = F::Output;

    #[cfg(feature = "transport")]
    const TRAVEL: Option<Travel<Self>> = Some(crate::travel::of::<Self>());

    fn run(self) -> F::Output {
        self.function.call(self.args)
    }

    fn function(&self) -> observe::Function {
        observe::Function::at(self.function.address())
    }
}

/// The same call on each of several items. One item's failure is no other's.
pub(crate) struct Many<F, A> {
    pub(crate) function: F,
    pub(crate) items: Vec<A>,
}

/// What a chunk gives: an outcome for each item, and the time that they took together. [`outcomes`](crate::delayed::outcomes)
/// takes them out.
#[derive(Debug)]
pub struct Batch<R> {
    pub(crate) outcomes: Outcomes<R>,
    pub(crate) elapsed: Duration,
}

impl<A: Value, F: Function<A, Output: Value>> Work for Many<F, A> {
    type Output = Batch<F::Output>;

    #[cfg(feature = "transport")]
    const TRAVEL: Option<Travel<Self>> = Some(crate::travel::of::<Self>());

    fn run(self) -> Self::Output {
        let Many { function, items } = self;
        call_each(items.into(), |item| function.call(item))
    }

    fn function(&self) -> observe::Function {
        observe::Function::at(self.function.address())
    }

    fn first_failure(output: &Self::Output) -> Option<&Failure> {
        output.outcomes.first_failure()
    }

    /// A chunk of a single item is that item's call.
    fn failure_in(output: &Self::Output) -> Option<&Failure> {
        output.outcomes.only_failure()
    }
}

/// Makes the call on each item in turn, until somebody asks for the whole to stop.
pub(crate) fn call_each<A, R>(items: Outcomes<A>, call: impl Fn(A) -> R) -> Batch<R> {
    let began = Instant::now();
    let token = current_task().cancel_token();
    let mut outcomes = Outcomes::with_capacity(items.len());
    let mut items = items.into_iter();
    loop {
        // One guard for all calls that return. One that panics has been taken from `items`: the next guard goes on after it.
        let made = catch(|| {
            for item in &mut items {
                forget_contained();
                let is_cancelled = token.is_cancelled();
                outcomes
                    .push(item.and_then(|item| if is_cancelled { Err(Failure::Cancelled) } else { Ok(call(item)) }));
            }
        });
        match made {
            Ok(()) => break,
            Err(failure) => outcomes.push(Err(failure)),
        }
    }
    Batch { outcomes, elapsed: began.elapsed() }
}

/// A closure, with whatever it captured. It stays in this process.
pub(crate) struct Closure<F, R> {
    function: F,
    result: PhantomData<fn() -> R>,
}

impl<F, R> Closure<F, R> {
    pub(crate) fn new(function: F) -> Self {
        Closure { function, result: PhantomData }
    }
}

impl<F: FnOnce() -> R + Send + 'static, R: Send + 'static> Work for Closure<F, R> {
    type Output = R;

    fn run(self) -> R {
        (self.function)()
    }

    fn function(&self) -> observe::Function {
        observe::Function::named(any::type_name::<F>())
    }
}
