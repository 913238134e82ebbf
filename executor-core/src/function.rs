//! The functions of calls: with and without a context.

#[cfg(feature = "transport")]
pub(crate) use crate::portable::Named;
use crate::{context::Context, value::SharedValue};

/// Without the feature `transport`, no function needs a name.
#[cfg(not(feature = "transport"))]
pub(crate) trait Named<A> {}
#[cfg(not(feature = "transport"))]
impl<A, F> Named<A> for F {}

/// A function that can be called on an `A`.
pub(crate) trait Function<A>: Named<A> + Clone + Send + 'static {
    type Output;

    fn call(&self, args: A) -> Self::Output;

    /// Where the function pointer points.
    fn address(&self) -> *const ();
}

/// `fn(A) -> R`.
pub(crate) struct Plain<A, R>(pub(crate) fn(A) -> R);

impl<A, R> Clone for Plain<A, R> {
    fn clone(&self) -> Self {
        Plain(self.0)
    }
}

impl<A: 'static, R: 'static> Function<A> for Plain<A, R> {
    type Output = R;

    fn call(&self, args: A) -> R {
        (self.0)(args)
    }

    fn address(&self) -> *const () {
        self.0 as *const ()
    }
}

/// `fn(A, B) -> R`, called on pairs.
pub(crate) struct Spread<A, B, R>(pub(crate) fn(A, B) -> R);

impl<A, B, R> Clone for Spread<A, B, R> {
    fn clone(&self) -> Self {
        Spread(self.0)
    }
}

impl<A: 'static, B: 'static, R: 'static> Function<(A, B)> for Spread<A, B, R> {
    type Output = R;

    fn call(&self, (a, b): (A, B)) -> R {
        (self.0)(a, b)
    }

    fn address(&self) -> *const () {
        self.0 as *const ()
    }
}

/// `fn(&C, A) -> R` with its context.
pub(crate) struct Bound<C, A, R> {
    pub(crate) function: fn(&C, A) -> R,
    pub(crate) context: Context<C>,
}

impl<C, A, R> Clone for Bound<C, A, R> {
    fn clone(&self) -> Self {
        Bound { function: self.function, context: self.context.clone() }
    }
}

impl<C: SharedValue, A: 'static, R: 'static> Function<A> for Bound<C, A, R> {
    type Output = R;

    fn call(&self, args: A) -> R {
        (self.function)(self.context.get(), args)
    }

    fn address(&self) -> *const () {
        self.function as *const ()
    }
}
