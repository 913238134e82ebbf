//~ E0382
//~ use of moved value: `thread`
// THR-01: what was started is no longer there to be started.
use concurrent_futures::Thread;

fn main() {
    let thread = Thread::new(|()| (), ());
    thread.start().unwrap().join().unwrap();
    thread.start().unwrap().join().unwrap();
}
