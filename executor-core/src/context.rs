//! A large value that many calls share: sent once to each worker that needs it, not once a call.

use once_cell::sync::OnceCell;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    any::Any,
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    attachments::{self, Attachments, Encoded},
    codec,
    error::Failure,
    panic,
};

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
    encoded: OnceCell<(Arc<Vec<u8>>, Attachments)>,
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
        Context(Arc::new(Shared { id, value, encoded: OnceCell::new() }))
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

impl<C: Serialize + Send + Sync + 'static> Context<C> {
    /// The encoded form for a call that is about to travel.
    pub(crate) fn parcel(&self) -> Result<ContextParcel, Failure> {
        let (bytes, attachments) = self.0.encoded.get_or_try_init(|| {
            let mut bytes = Vec::new();
            let encode = || panic::catch(|| codec::encode(&self.0.value, &mut bytes)).flatten();
            let (encoded, attachments) = attachments::collecting(encode);
            encoded?;
            Ok((Arc::new(bytes), attachments))
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
    pub bytes: Arc<Vec<u8>>,
    /// What it attached.
    pub attachments: Attachments,
}

/// The receiving side: the contexts that a worker has, each decoded when first used.
#[derive(Debug, Default)]
pub struct ContextStore(HashMap<ContextId, Entry>);

enum Entry {
    Encoded(Encoded),
    Decoded(Arc<dyn Any + Send + Sync>),
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Entry::Encoded(_) => "Encoded",
            Entry::Decoded(_) => "Decoded",
        })
    }
}

impl ContextStore {
    /// Keeps a context until it is [forgotten](Self::forget).
    pub fn insert(&mut self, id: ContextId, value: Encoded) {
        self.0.insert(id, Entry::Encoded(value));
    }

    /// Drops a context.
    pub fn forget(&mut self, id: ContextId) {
        panic::drop_quietly(self.0.remove(&id));
    }

    /// The context as the type with which it was sent.
    pub(crate) fn get<C>(&mut self, id: ContextId) -> Result<Context<C>, Failure>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        let entry = self.0.get_mut(&id).ok_or_else(|| Failure::Refused("its context was not sent".into()))?;
        if let Entry::Encoded(Encoded { bytes, attachments }) = entry {
            let decode = || panic::catch(|| codec::decode::<C>(bytes)).flatten();
            let value = attachments::handing_out(attachments.clone(), decode)?;
            *entry = Entry::Decoded(Arc::new(Shared { id, value, encoded: OnceCell::new() }));
        }
        match entry {
            Entry::Decoded(shared) => Arc::clone(shared)
                .downcast::<Shared<C>>()
                .map(Context)
                .map_err(|_| Failure::Refused("its context is of another type".into())),
            Entry::Encoded(_) => unreachable!("it was decoded just now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_encoded_once_and_decoded_once() {
        let context = Context::new(vec![1_u32, 2, 3]);
        let (first, second) = (context.parcel().unwrap(), context.parcel().unwrap());
        assert!(Arc::ptr_eq(&first.bytes, &second.bytes));

        let mut store = ContextStore::default();
        store.insert(first.id, Encoded { bytes: first.bytes.to_vec(), attachments: Vec::new() });
        let one = store.get::<Vec<u32>>(first.id).unwrap();
        let two = store.get::<Vec<u32>>(first.id).unwrap();
        assert_eq!(one.get(), &[1, 2, 3]);
        assert!(Arc::ptr_eq(&one.0, &two.0));

        assert!(matches!(store.get::<String>(first.id), Err(Failure::Refused(_))), "another type");
        store.forget(first.id);
        assert!(matches!(store.get::<Vec<u32>>(first.id), Err(Failure::Refused(_))), "forgotten");
    }
}
