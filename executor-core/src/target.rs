//! A call that is all that a process does: its function, what that may return, and how it ends the process.

use std::{fmt, marker::PhantomData};

use crate::{
    attachments::{self, Attachments},
    call::Call,
    codec,
    error::Failure,
    function::Plain,
    panic::{catch, drop_quietly},
    payload::Payload,
    portable::Travels,
    reply::{self, Ending},
    value::Value,
};

/// What the function of a process may return: how its process is to end.
///
/// `()` is exit code 0, a number is itself, modulo 256 as everywhere, `true` is 1 and `false` 0. An `Err` is exit code 1, and its
/// text goes to standard error.
#[diagnostic::on_unimplemented(
    message = "a process cannot end with `{Self}`",
    label = "neither `()`, nor an exit code, nor a `Result` of these",
    note = "the function of a `Process` gives nothing back; let it put its result into a `Queue`"
)]
pub trait ExitReport: 'static {
    /// The exit code.
    ///
    /// # Errors
    /// What went wrong, for people.
    fn report(self) -> Result<i32, String>;
}

impl ExitReport for () {
    fn report(self) -> Result<i32, String> {
        Ok(0)
    }
}

impl ExitReport for i32 {
    fn report(self) -> Result<i32, String> {
        Ok(self)
    }
}

impl ExitReport for bool {
    fn report(self) -> Result<i32, String> {
        Ok(self.into())
    }
}

/// A function that goes on until its process is ended.
impl ExitReport for Nothing {
    fn report(self) -> Result<i32, String> {
        self
    }
}

/// The type `!`, which has no name yet where a type is to be named.
type Nothing = <fn() -> ! as nothing::Returns>::Value;

mod nothing {
    pub trait Returns {
        type Value;
    }

    impl<R> Returns for fn() -> R {
        type Value = R;
    }
}

impl<T: ExitReport, E: fmt::Display + 'static> ExitReport for Result<T, E> {
    fn report(self) -> Result<i32, String> {
        self.map_err(|error| format!("{error:#}"))?.report()
    }
}

/// `function(args)` as it travels.
///
/// # Errors
/// When the arguments cannot be encoded.
pub fn pack<A: Value, R: ExitReport>(function: fn(A) -> R, args: A) -> Result<Call, Failure> {
    let call =
        Call::new::<Target<A, R>>(&Plain(function), |out| catch(|| codec::encode(&args, out.buffer())).flatten());
    drop_quietly(args);
    call
}

/// The exit code in the reply of a call that [`pack`] made.
///
/// # Errors
/// What went wrong, for people.
pub fn exit_code(reply: &[u8]) -> Result<i32, String> {
    reply::read(reply, codec::decode::<Result<i32, String>>).map_err(|failure| failure.to_string())?
}

struct Target<A, R>(PhantomData<fn(A) -> R>);

impl<A: Value, R: ExitReport> Travels for Target<A, R> {
    type Function = Plain<A, R>;
    type Args = A;

    fn serve(function: Plain<A, R>, args: Vec<u8>, attachments: Attachments, out: &mut Payload) -> Ending {
        let args = attachments::handing_out(attachments, || catch(|| codec::decode_from::<A>(args)).flatten());
        match args.and_then(|args| catch(|| (function.0)(args).report())) {
            Ok(report) => reply::value(|out| codec::encode(&report, out.buffer()), out),
            Err(failure) => reply::failure(&failure, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PROC-07.
    #[test]
    fn endings_have_codes() {
        assert_eq!(().report(), Ok(0));
        assert_eq!([false.report(), true.report(), 263.report()], [Ok(0), Ok(1), Ok(263)]);
        assert_eq!(Ok::<i32, String>(3).report(), Ok(3));
        assert_eq!(Err::<(), _>("no such file").report(), Err("no such file".to_owned()));
        let boxed: Result<(), Box<dyn std::error::Error>> = Err("boxed".into());
        assert_eq!(boxed.report(), Err("boxed".to_owned()));
    }
}
