//~ E0382
//~ use of moved value: `task`
// FUT-04, FUT-05, FUT-07: a future has no setter, and what ends a backend's handle takes it.
use concurrent_futures::{Failure, backend::Task};

fn main() {
    let (task, _future) = Task::local(|| 1);
    drop(task.fail(Failure::Shutdown));
    task.run();
}
