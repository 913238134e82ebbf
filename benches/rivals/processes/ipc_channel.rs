//! A pool made by hand of `ipc-channel`: for each worker a thread, which takes a call from a queue, sends it, and waits
//! for the reply.

use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};
use serde_bytes::ByteBuf;
use std::{
    env,
    error::Error,
    process::{self, Child, Command},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use crate::{
    pool::Pool,
    task::{Call, Reply, Task},
};

/// Its value is the name by which a worker finds its parent.
const MARKER: &str = "RIVALS_IPC_CHANNEL_WORKER";

type Ends = (IpcSender<Call>, IpcReceiver<Reply>);
type Outcome = Result<Reply, String>;

/// In a worker, it does not return.
pub(crate) fn run_if_worker() {
    let Ok(name) = env::var(MARKER) else { return };
    // The parent's end is the end of the work.
    let _ = work(name);
    process::exit(0);
}

fn work(name: String) -> Result<(), Box<dyn Error>> {
    let (calls, their_calls) = ipc::channel::<Call>()?;
    let (their_replies, replies) = ipc::channel::<Reply>()?;
    IpcSender::<Ends>::connect(name)?.send((calls, replies))?;
    while let Ok(call) = their_calls.recv() {
        their_replies.send(call.answer())?;
    }
    Ok(())
}

struct Worker {
    process: Child,
    ends: Ends,
}

impl Worker {
    fn start() -> Result<Self, String> {
        let start = || -> Result<Self, Box<dyn Error>> {
            let (server, name) = IpcOneShotServer::<Ends>::new()?;
            let process = Command::new("/proc/self/exe").env(MARKER, name).spawn()?;
            let (_, ends) = server.accept()?;
            Ok(Worker { process, ends })
        };
        start().map_err(|error| error.to_string())
    }

    fn call(&self, call: Call) -> Outcome {
        self.ends.0.send(call).map_err(|error| error.to_string())?;
        self.ends.1.recv().map_err(|error| error.to_string())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended already
        let _ = self.process.wait();
    }
}

pub(crate) struct ByHand {
    /// `None` once the threads are to end.
    calls: Option<mpsc::Sender<(Call, mpsc::SyncSender<Outcome>)>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool for ByHand {
    const NAME: &str = "ipc-channel";
    type Bytes = ByteBuf;
    type Handle<T: Task> = mpsc::Receiver<Outcome>;

    fn open(workers: usize) -> Result<Self, String> {
        let (calls, queue) = mpsc::channel::<(Call, mpsc::SyncSender<Outcome>)>();
        let queue = Arc::new(Mutex::new(queue));
        let serve = move || {
            let Ok(mut worker) = Worker::start() else { return };
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((call, waiter)) = next else { return };
                let outcome = worker.call(call);
                let died = outcome.is_err();
                let _ = waiter.send(outcome); // nobody may wait
                if died {
                    let Ok(successor) = Worker::start() else { return };
                    worker = successor;
                }
            }
        };
        let threads = (0..workers).map(|_| thread::spawn(serve.clone())).collect();
        Ok(ByHand { calls: Some(calls), threads })
    }

    fn submit<T: Task>(&self, input: T::In) -> Self::Handle<T> {
        let (waiter, handle) = mpsc::sync_channel(1);
        if let Some(calls) = &self.calls {
            let _ = calls.send((T::pack(input), waiter)); // without workers, the handle says so
        }
        handle
    }

    fn wait<T: Task>(handle: Self::Handle<T>) -> Result<T::Out, String> {
        let reply = handle.recv().map_err(|error| error.to_string())??;
        T::unpack(reply).ok_or_else(|| "the reply to something else".into())
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        self.calls = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // what it panicked with has been printed
        }
    }
}
