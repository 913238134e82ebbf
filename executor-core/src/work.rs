//! What a task is to do: the kinds of call, how each is made here, and how each travels.
//!
//! | kind | made by | travels |
//! |---|---|---|
//! | [`Closure`] | `ThreadPoolExecutor::spawn` | no |
//! | [`Single`] | `submit`, `submit_with` | yes |
//! | [`Many`] | `map`, `map_with`: a chunk of items | yes, item by item |

use std::{
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    attachments::{self, Attachments},
    codec,
    context::ContextParcel,
    current::current_task,
    error::Failure,
    outcomes::Outcomes,
    panic::{catch, drop_quietly, forget_contained},
    portable::{CallName, Function, Travels, name_of},
    reply::{self, Ending},
    value::Value,
};

/// Something to do, and how its outcome comes back.
pub(crate) trait Work: Send + 'static {
    type Output: Send + 'static;

    /// Does it here. May panic.
    fn run(self) -> Self::Output;

    /// Turns it into bytes. May panic in user code.
    fn pack(self) -> Result<Call, Failure>;

    /// The outcome that a reply's value holds. May panic in user code.
    fn unpack(value: Vec<u8>) -> Result<Self::Output, Failure>;

    /// The same once more, for another attempt. May panic in user code.
    fn copy(&self) -> Result<Self, Failure>
    where
        Self: Sized;

    /// A failure that an output tells of, which is that of the whole call.
    fn failure_in(_: &Self::Output) -> Option<&Failure> {
        None
    }

    /// As [`failure_in`](Self::failure_in), for an output that came as bytes. Runs no user code.
    fn failure_in_value(_: &[u8]) -> Option<Failure> {
        None
    }
}

/// A call as it travels: a name, perhaps a context, and encoded arguments.
#[derive(Debug)]
pub struct Call {
    /// Which function, and how to call it.
    pub name: CallName,
    /// What it shares with other calls.
    pub context: Option<ContextParcel>,
    /// Its arguments, encoded.
    pub args: Arc<Vec<u8>>,
    /// What they attached.
    pub attachments: Attachments,
}

impl Call {
    pub(crate) fn new<W: Travels>(
        function: &W::Function,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>,
    ) -> Result<Call, Failure> {
        let mut args = Vec::new();
        let (encoded, attachments) = attachments::collecting(|| encode(&mut args));
        encoded?;
        Ok(Call { name: name_of::<W>(function)?, context: function.context()?, args: Arc::new(args), attachments })
    }
}

/// One call.
pub(crate) struct Single<F, A> {
    pub(crate) function: F,
    pub(crate) args: A,
}

impl<A: Value, F: Function<A, Output: Value>> Work for Single<F, A> {
    type Output = F::Output;

    fn run(self) -> F::Output {
        self.function.call(self.args)
    }

    fn pack(self) -> Result<Call, Failure> {
        let mut args = Some(self.args);
        Call::new::<Self>(&self.function, |out| codec::encode_from(&mut args, out))
    }

    fn unpack(value: Vec<u8>) -> Result<F::Output, Failure> {
        codec::decode_from(value)
    }

    fn copy(&self) -> Result<Self, Failure> {
        Ok(Single { function: self.function.clone(), args: copy(&self.args)? })
    }
}

impl<A: Value, F: Function<A, Output: Value>> Travels for Single<F, A> {
    type Function = F;
    type Args = A;

    fn serve(function: F, args: Vec<u8>, attachments: Attachments, out: &mut Vec<u8>) -> Ending {
        let args = attachments::handing_out(attachments, || catch(|| codec::decode_from::<A>(args)).flatten());
        match args.and_then(|args| catch(|| function.call(args))) {
            Ok(value) => {
                let mut value = Some(value);
                let ending = reply::value(|out| codec::encode_from(&mut value, out), out);
                drop_quietly(value);
                ending
            }
            Err(failure) => reply::failure(&failure, out),
        }
    }
}

/// The same call on each of several items. One item's failure is no other's.
pub(crate) struct Many<F, A> {
    pub(crate) function: F,
    pub(crate) items: Vec<A>,
}

/// What a chunk gives: an outcome for each item, and the time that they took together.
pub(crate) struct Batch<R> {
    pub(crate) outcomes: Outcomes<R>,
    pub(crate) elapsed: Duration,
}

impl<A: Value, F: Function<A, Output: Value>> Work for Many<F, A> {
    type Output = Batch<F::Output>;

    fn run(self) -> Self::Output {
        let Many { function, items } = self;
        call_each(items.into(), |item| function.call(item))
    }

    fn pack(self) -> Result<Call, Failure> {
        Call::new::<Self>(&self.function, |out| {
            codec::items::encode_all(self.items.into(), out);
            Ok(())
        })
    }

    fn unpack(mut value: Vec<u8>) -> Result<Self::Output, Failure> {
        let (outcomes, nanos) = value
            .split_last_chunk::<8>()
            .ok_or_else(|| Failure::Decode { type_name: "a chunk's reply".into(), reason: "it is too short".into() })?;
        let elapsed = Duration::from_nanos(u64::from_le_bytes(*nanos));
        value.truncate(outcomes.len());
        Ok(Batch { outcomes: codec::items::decode_all(value)?, elapsed })
    }

    fn copy(&self) -> Result<Self, Failure> {
        let items = self.items.iter().map(copy).collect::<Result<_, _>>()?;
        Ok(Many { function: self.function.clone(), items })
    }

    /// A chunk of a single item is that item's call.
    fn failure_in(output: &Self::Output) -> Option<&Failure> {
        output.outcomes.only_failure()
    }

    fn failure_in_value(value: &[u8]) -> Option<Failure> {
        codec::items::only_failure(value.split_last_chunk::<8>()?.0)
    }
}

impl<A: Value, F: Function<A, Output: Value>> Travels for Many<F, A> {
    type Function = F;
    type Args = A;

    fn serve(function: F, args: Vec<u8>, attachments: Attachments, out: &mut Vec<u8>) -> Ending {
        let items = match attachments::handing_out(attachments, || codec::items::decode_all::<A>(args)) {
            Ok(items) => items,
            Err(failure) => return reply::failure(&failure, out),
        };
        let Batch { outcomes, elapsed } = call_each(items, |item| function.call(item));
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let encode = |out: &mut Vec<u8>| {
            codec::items::encode_all(outcomes, out);
            out.extend_from_slice(&nanos.to_le_bytes());
            Ok(())
        };
        reply::value(encode, out)
    }
}

/// Makes the call on each item in turn, until somebody asks for the whole to stop.
fn call_each<A, R>(items: Outcomes<A>, call: impl Fn(A) -> R) -> Batch<R> {
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

/// A value's copy, by way of its encoded form, which every value has.
fn copy<T: Value>(value: &T) -> Result<T, Failure> {
    let mut bytes = Vec::new();
    let (encoded, attachments) = attachments::collecting(|| codec::encode(value, &mut bytes));
    encoded?;
    attachments::handing_out(attachments, || codec::decode(&bytes))
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

    fn pack(self) -> Result<Call, Failure> {
        Err(Failure::Refused("a closure with captures cannot leave this process".into()))
    }

    fn unpack(_: Vec<u8>) -> Result<R, Failure> {
        Err(Failure::Refused("a closure's result cannot come from another process".into()))
    }

    fn copy(&self) -> Result<Self, Failure> {
        Err(Failure::Refused("a closure with captures can be called only once".into()))
    }
}
