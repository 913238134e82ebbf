//! The contexts that a worker has.

use serde::de::DeserializeOwned;
use std::{any::Any, collections::HashMap, fmt};

use crate::{
    attachments::{self, Encoded},
    codec,
    context::{Context, ContextId},
    error::Failure,
    panic,
};

/// The receiving side: the contexts that a worker has, each decoded when first used.
#[derive(Debug, Default)]
pub struct ContextStore(HashMap<ContextId, Entry>);

enum Entry {
    Encoded(Encoded),
    /// The context itself.
    Decoded(Box<dyn Any + Send + Sync>),
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
            *entry = Entry::Decoded(Box::new(Context::named(id, value)));
        }
        match entry {
            Entry::Decoded(context) => context
                .downcast_ref::<Context<C>>()
                .cloned()
                .ok_or_else(|| Failure::Refused("its context is of another type".into())),
            Entry::Encoded(_) => unreachable!("it was decoded just now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_context_is_encoded_once_and_decoded_once() {
        let context = Context::new(vec![1_u32, 2, 3]);
        let (first, second) = (context.parcel().unwrap(), context.parcel().unwrap());
        assert!(Arc::ptr_eq(&first.bytes, &second.bytes));

        let mut store = ContextStore::default();
        store.insert(first.id, first.bytes.parts().concat().into());
        let one = store.get::<Vec<u32>>(first.id).unwrap();
        let two = store.get::<Vec<u32>>(first.id).unwrap();
        assert_eq!(one.get(), &[1, 2, 3]);
        assert!(std::ptr::eq(one.get(), two.get()));

        assert!(matches!(store.get::<String>(first.id), Err(Failure::Refused(_))), "another type");
        store.forget(first.id);
        assert!(matches!(store.get::<Vec<u32>>(first.id), Err(Failure::Refused(_))), "forgotten");
    }
}
