//~ E0382
//~ use of moved value: `process`
// PROC-05: what was started is no longer there to be started.
use concurrent_futures::Process;

fn main() {
    let process = Process::new(|()| (), ());
    process.start().unwrap().join().unwrap();
    process.start().unwrap().join().unwrap();
}
