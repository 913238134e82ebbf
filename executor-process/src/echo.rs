//! Where workers' standard error goes on to this process's own: through a thread of its own, since whoever reads ours may be
//! slow, or gone, and somebody else may hold the standard library's lock on it.

use std::{
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use crate::{inbox::Shared, teller::Teller};

/// With this many bytes still to be printed, workers are no longer read, and wait as they write.
const FULL_BYTES: usize = 1 << 20;

/// How long the end of a pool waits for what is still to be printed.
pub(crate) const LAST_WAIT: Duration = Duration::from_secs(5);

/// Prints on a thread of its own, which starts with the first output.
pub(crate) struct Echo {
    shared: Arc<Shared>,
    printer: Option<Printer>,
    /// Takes what is told line by line, and log records.
    pub(crate) teller: Teller,
    unprinted_bytes: Arc<AtomicUsize>,
}

struct Printer {
    sender: mpsc::Sender<Vec<u8>>,
    /// Hangs up when all is printed.
    done: mpsc::Receiver<()>,
}

impl Echo {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Echo { shared: Arc::clone(shared), printer: None, teller: Teller::new(shared), unprinted_bytes: Arc::default() }
    }

    /// Whether workers are to wait until more is printed. The driver is woken when that is so.
    pub(crate) fn is_full(&self) -> bool {
        // ORDERING: SeqCst, as all of `unprinted_bytes`; the wake-up that may follow goes through the inbox's lock.
        self.unprinted_bytes.load(Ordering::SeqCst) >= FULL_BYTES || self.teller.is_full()
    }

    pub(crate) fn print(&mut self, bytes: &[u8]) {
        if self.printer.is_none() {
            self.printer = self.start();
        }
        let Some(printer) = &self.printer else { return }; // no thread to be had: it is lost, but for the tail
        self.unprinted_bytes.fetch_add(bytes.len(), Ordering::SeqCst);
        // The printer lives until its channel hangs up.
        let _ = printer.sender.send(bytes.to_vec());
    }

    fn start(&self) -> Option<Printer> {
        let (sender, receiver) = mpsc::channel::<Vec<u8>>();
        let (finished, done) = mpsc::channel();
        let (shared, unprinted_bytes) = (Arc::clone(&self.shared), Arc::clone(&self.unprinted_bytes));
        let run = move || {
            let _finished: mpsc::Sender<()> = finished;
            for bytes in receiver {
                write_all(rustix::stdio::stderr(), &bytes);
                let before = unprinted_bytes.fetch_sub(bytes.len(), Ordering::SeqCst);
                if before >= FULL_BYTES {
                    shared.order(|_| ()); // the driver may read again
                }
            }
        };
        let name = format!("{}-stderr", self.shared.chosen.name_prefix);
        thread::Builder::new().name(name).spawn(run).ok().map(|_| Printer { sender, done })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        if let Some(Printer { sender, done }) = self.printer.take() {
            drop(sender);
            // Hanging up is the answer; nobody waits for ever for a terminal that does not take it.
            let _ = done.recv_timeout(LAST_WAIT);
        }
    }
}

/// Straight to the descriptor: the standard library's handle has a lock that a user may hold.
pub(crate) fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => thread::sleep(Duration::from_millis(1)), // somebody made it non-blocking
            Err(_) => return,                                                         // nobody is left to tell
        }
    }
}
