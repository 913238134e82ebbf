//! How each kind of call leaves this process and is made in another one.

use std::{sync::Arc, time::Duration};

use crate::{
    attachments::{self, Attachments, Encoded},
    call::Call,
    codec,
    error::Failure,
    function::Function,
    panic::{catch, drop_quietly},
    payload::Payload,
    portable::{Named, Travels, name_of},
    reply::{self, Ending},
    value::Value,
    work::{Batch, Many, Single, Travel, Work, call_each},
};

/// Work that can be turned into bytes.
pub(crate) trait Packs: Work {
    /// Turns it into bytes. May panic in user code.
    fn pack(self) -> Result<Call, Failure>;

    /// The outcome that a reply's value holds. May panic in user code.
    fn unpack(value: Vec<u8>) -> Result<Self::Output, Failure>;

    /// The same once more, for another attempt. May panic in user code.
    fn copy(&self) -> Result<Self, Failure>;

    /// As [`first_failure`](Work::first_failure), for an output that came as bytes. Runs no user code.
    fn first_failure_in_value(_: &[u8]) -> Option<Failure> {
        None
    }

    /// As [`failure_in`](Work::failure_in), for an output that came as bytes. Runs no user code.
    fn failure_in_value(_: &[u8]) -> Option<Failure> {
        None
    }
}

/// How work of this kind travels.
pub(crate) const fn of<W: Packs>() -> Travel<W> {
    Travel {
        pack: W::pack,
        unpack: |Encoded { bytes, attachments }| {
            attachments::handing_out(attachments, || reply::read_from(bytes, W::unpack))
        },
        copy: W::copy,
        failure: |reply| reply::failure_in(reply, |_| None),
        first_failure: |reply| reply::failure_in(reply, W::first_failure_in_value),
        failure_of_all: |reply| reply::failure_in(reply, W::failure_in_value),
    }
}

impl Call {
    pub(crate) fn new<W: Travels>(
        function: &W::Function,
        encode: impl FnOnce(&mut Payload) -> Result<(), Failure>,
    ) -> Result<Call, Failure> {
        let mut args = Payload::default();
        let (encoded, attachments) = attachments::collecting(|| encode(&mut args));
        encoded?;
        Ok(Call { name: name_of::<W>(function)?, context: function.context()?, args: Arc::new(args), attachments })
    }
}

impl<A: Value, F: Function<A, Output: Value>> Packs for Single<F, A> {
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

    fn serve(function: F, args: Vec<u8>, attachments: Attachments, out: &mut Payload) -> Ending {
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

impl<A: Value, F: Function<A, Output: Value>> Packs for Many<F, A> {
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

    fn first_failure_in_value(value: &[u8]) -> Option<Failure> {
        codec::items::first_failure(value.split_last_chunk::<8>()?.0)
    }

    fn failure_in_value(value: &[u8]) -> Option<Failure> {
        codec::items::only_failure(value.split_last_chunk::<8>()?.0)
    }
}

impl<A: Value, F: Function<A, Output: Value>> Travels for Many<F, A> {
    type Function = F;
    type Args = A;

    fn serve(function: F, args: Vec<u8>, attachments: Attachments, out: &mut Payload) -> Ending {
        let items = match attachments::handing_out(attachments, || codec::items::decode_all::<A>(args)) {
            Ok(items) => items,
            Err(failure) => return reply::failure(&failure, out),
        };
        let Batch { outcomes, elapsed } = call_each(items, |item| function.call(item));
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let encode = |out: &mut Payload| {
            codec::items::encode_all(outcomes, out);
            out.buffer().extend_from_slice(&nanos.to_le_bytes());
            Ok(())
        };
        reply::value(encode, out)
    }
}

/// A value's copy, by way of its encoded form, which every value has.
fn copy<T: Value>(value: &T) -> Result<T, Failure> {
    let mut bytes = Vec::new();
    let (encoded, attachments) = attachments::collecting(|| codec::encode(value, &mut bytes));
    encoded?;
    attachments::handing_out(attachments, || codec::decode(&bytes))
}
