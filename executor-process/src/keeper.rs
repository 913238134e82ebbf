//! The thread that starts processes for others, and outlives them: a child that dies with its parent does so, says the kernel,
//! when the *thread* ends that has started it.

use executor_core::sync::Mutex;
use std::{
    io,
    process::{Child, Command},
    sync::mpsc,
    thread,
};

struct Order {
    command: Command,
    reply: mpsc::Sender<io::Result<Child>>,
}

static KEEPER: Mutex<Option<mpsc::Sender<Order>>> = Mutex::new(None);

/// Has the process started by a thread that ends only with this process.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    let (reply, started) = mpsc::channel();
    let order = Order { command, reply };
    let mut keeper = KEEPER.lock();
    if keeper.is_none() {
        let (sender, orders) = mpsc::channel::<Order>();
        thread::Builder::new().name("executor-keeper".into()).spawn(|| keep(orders))?;
        *keeper = Some(sender);
    }
    let sent = keeper.as_ref().expect("it was put there").send(order);
    drop(keeper);
    let gone = || io::Error::other("the thread that starts processes has ended");
    sent.map_err(|_| gone())?;
    started.recv().map_err(|_| gone())?
}

fn keep(orders: mpsc::Receiver<Order>) {
    for Order { mut command, reply } in orders {
        // Whoever ordered it waits for it.
        let _ = reply.send(command.spawn());
    }
}
