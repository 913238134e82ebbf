//! A large value that many calls share: sent once to each worker that needs it, not once a call.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

#[cfg(feature = "transport")]
pub use crate::context_store::ContextStore;

#[cfg(feature = "transport")]
use crate::{attachments, codec, error::Failure, panic};
use crate::{attachments::Attachments, payload::Payload};

/// A value that is given to many calls by reference.
///
/// In this process it is shared. A worker process receives it once, with the first call that needs
/// it; after the last handle here is gone, it forgets it when it has answered its next calls. It is
/// read-only by type: a worker's copy cannot drift from this one.
///
/// # Examples
/// ```
/// use concurrent_futures::{Context, Executor, ProcessPoolExecutor};
///
/// let pool = ProcessPoolExecutor::new(2)?;
/// let table = Context::new(vec![10_u64, 20, 30]);
/// let values: Vec<u64> = pool.map_with(&table, |table, i: usize| table[i], 0..3).collect::<Result<_, _>>()?;
/// assert_eq!(values, [10, 20, 30]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Context<C>(Arc<Shared<C>>);

struct Shared<C> {
    id: ContextId,
    value: C,
    #[cfg(feature = "transport")]
    encoded: once_cell::sync::OnceCell<(Arc<Payload>, Attachments)>,
}

/// Names a context among all that this process ever makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContextId(pub u64);

impl<C> Context<C> {
    /// Makes `value` shareable. It is encoded when it is first sent, and only then.
    pub fn new(value: C) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // ORDERING: Relaxed; only uniqueness matters.
        let id = ContextId(NEXT.fetch_add(1, Ordering::Relaxed));
        Context::named(id, value)
    }

    /// The context of that name.
    pub(crate) fn named(id: ContextId, value: C) -> Self {
        Context(Arc::new(Shared {
            id,
            value,
            #[cfg(feature = "transport")]
            encoded: once_cell::sync::OnceCell::new(),
        }))
    }

    /// The value.
    pub fn get(&self) -> &C {
        &self.0.value
    }
}

impl<C> Clone for Context<C> {
    fn clone(&self) -> Self {
        Context(Arc::clone(&self.0))
    }
}

impl<C> fmt::Debug for Context<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Context").field(&self.0.id.0).finish_non_exhaustive()
    }
}

#[cfg(feature = "transport")]
impl<C: serde::Serialize + Send + Sync + 'static> Context<C> {
    /// The encoded form for a call that is about to travel.
    pub(crate) fn parcel(&self) -> Result<ContextParcel, Failure> {
        let (bytes, attachments) = self.0.encoded.get_or_try_init(|| {
            let mut bytes = Vec::new();
            let encode = || panic::catch(|| codec::encode(&self.0.value, &mut bytes)).flatten();
            let (encoded, attachments) = attachments::collecting(encode);
            encoded?;
            Ok((Arc::new(bytes.into()), attachments))
        })?;
        Ok(ContextParcel { id: self.0.id, bytes: Arc::clone(bytes), attachments: attachments.clone() })
    }
}

/// A context in the form in which it travels.
#[derive(Clone, Debug)]
pub struct ContextParcel {
    /// Which context this is.
    pub id: ContextId,
    /// Its value, encoded. Another handle on the same allocation exists for as long as somebody
    /// may still submit a call with this context.
    pub bytes: Arc<Payload>,
    /// What it attached.
    pub attachments: Attachments,
}
