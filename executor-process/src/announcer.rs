//! Where a process pool's callbacks run: on a thread of their own, so that a slow one holds up no other task.

use executor_core::{
    blocking::{self, Home, Worker},
    cell::Announcement,
};
use std::{
    rc::Rc,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use crate::inbox::Shared;

/// Runs callbacks on a thread of their own, which starts with the first of them.
pub(crate) struct Announcer {
    home: Home,
    name: String,
    thread: Option<(mpsc::Sender<Announcement>, JoinHandle<()>)>,
}

impl Announcer {
    pub(crate) fn new(shared: &Shared) -> Self {
        Announcer { home: shared.home, name: format!("{}-callbacks", shared.chosen.name_prefix), thread: None }
    }

    pub(crate) fn announce(&mut self, announcement: Option<Announcement>) {
        let Some(announcement) = announcement else { return };
        if self.thread.is_none() {
            let (sender, receiver) = mpsc::channel::<Announcement>();
            let home = self.home;
            let run = move || {
                // So that a callback that shuts this pool down does not wait for itself.
                let _entered = blocking::enter(Rc::new(CallbackThread(home)));
                receiver.into_iter().for_each(Announcement::run);
            };
            self.thread = thread::Builder::new().name(self.name.clone()).spawn(run).ok().map(|thread| (sender, thread));
        }
        match &self.thread {
            // Gives it back if the thread is gone, and dropping it runs it: late, but not lost.
            Some((sender, _)) => drop(sender.send(announcement)),
            // No thread is to be had: here, where it holds up others, rather than never.
            None => announcement.run(),
        }
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            // Callbacks' panics are contained, so there is none to pass on.
            let _ = thread.join();
        }
    }
}

/// A thread of a pool that runs user code, but no calls.
pub(crate) struct CallbackThread(pub(crate) Home);

impl Worker for CallbackThread {
    fn home(&self) -> Home {
        self.0
    }

    fn block(&self) {}

    fn unblock(&self) {}
}
