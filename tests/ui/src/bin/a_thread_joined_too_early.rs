//~ E0599
//~ no method named `join` found for struct `concurrent_futures::Thread<R>`
// THR-01: only what was started has it.
use concurrent_futures::Thread;

fn main() {
    let thread = Thread::new(|()| (), ());
    thread.join().unwrap();
}
