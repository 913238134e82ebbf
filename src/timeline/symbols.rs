//! What a function is called: by the program's symbols, which are looked up when a timeline is written.

use executor_core::Function;
use std::{ffi::c_void, panic::Location};

/// A function's name. Where the program has none for it, the line that submitted the call stands for it: so it is for a
/// closure, of which a function pointer leads to code that is the same for all of its type.
pub(super) fn name(function: Function, site: &Location<'_>) -> String {
    let symbol = function.address.and_then(symbol).or_else(|| function.name.map(str::to_owned));
    // In an optimised program, a closure is inlined in what calls it, which is named by the closure's type.
    let is_closure =
        |symbol: &String| ["core::ops::function", "{{closure}}", "{closure"].iter().any(|part| symbol.contains(part));
    match symbol {
        Some(symbol) if !is_closure(&symbol) => symbol,
        _ => format!("closure at {}:{}", site.file(), site.line()),
    }
}

fn symbol(address: usize) -> Option<String> {
    let mut found = None;
    // As an address to return to, of which the instruction before it is meant: the function's first one.
    backtrace::resolve((address + 1) as *mut c_void, |symbol| {
        // The last one is the function itself; those before are inlined in it.
        if let Some(name) = symbol.name() {
            found = Some(format!("{name:#}"));
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor_core::{Executor, Observer, Shutdown, TaskEvent};
    use executor_thread::ThreadPoolExecutor;
    use std::sync::{Arc, Mutex};

    #[inline(never)]
    fn a_function_with_a_name(x: u64) -> u64 {
        x + 1
    }

    #[derive(Default)]
    struct Names(Mutex<Vec<String>>);

    impl Observer for Names {
        fn task(&self, event: &TaskEvent) {
            self.0.lock().unwrap().push(name(event.function, event.submitted_at));
        }
    }

    #[test]
    fn functions_have_names_and_closures_places() {
        let names = Arc::new(Names::default());
        let pool = ThreadPoolExecutor::builder().max_workers(1).observer(names.clone()).build().unwrap();
        pool.submit(a_function_with_a_name, 1).result().unwrap();
        pool.submit(|x: u64| x + 2, 1).result().unwrap();
        pool.spawn(|| ()).result().unwrap();
        pool.shutdown(Shutdown::wait());
        let names = names.0.lock().unwrap();
        assert!(names[0].ends_with("a_function_with_a_name"), "{names:?}");
        let is_place = |name: &str| name.starts_with("closure at ") && name.contains("symbols.rs:");
        assert!(is_place(&names[3]) && is_place(&names[6]) && names[3] != names[6], "{names:?}");
    }
}
