//~ E0599
//~ no method named `join` found for struct `Process`
// PROC-01, PROC-05: what is not started cannot be joined, nor asked how it ended.
use concurrent_futures::Process;

fn main() {
    Process::new(|()| (), ()).join().unwrap();
}
