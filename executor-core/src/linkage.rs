//! Which modules are there when this program starts, and which came later.
//!
//! A worker is this program, started again: it has the program's modules and those that it names as needed, and that these name in turn. A
//! library that was loaded by hand (`dlopen`) is not among them before `main`, so nothing of it can enter a worker there.

#![expect(unsafe_code, reason = "what modules need is read where the loader has put it")]

use std::{collections::HashSet, ffi::CStr};

use crate::portable::{Module, loaded_modules};

/// One entry of a module's dynamic section.
#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    tag: usize,
    value: usize,
}

const END: usize = 0;
const NEEDED: usize = 1;
const STRINGS: usize = 5;
const NAME: usize = 14;

/// The path of the module in which `address` lies, if that one is not there when the program starts. `None`: it is.
#[must_use]
pub fn loaded_later(address: usize) -> Option<String> {
    let modules = loaded_modules();
    let place = modules.iter().position(|module| module.contains(address))?;
    let mut there = HashSet::from([0]); // the program itself
    let mut names: Vec<String> = needed_by(&modules[0]).0;
    while let Some(name) = names.pop() {
        let of_that_name = |module: &Module| {
            let file = module.path.rsplit('/').next().unwrap_or_default();
            module.path == name || file == name || needed_by(module).1.as_ref() == Some(&name)
        };
        if let Some(found) = modules.iter().position(of_that_name)
            && there.insert(found)
        {
            names.extend(needed_by(&modules[found]).0);
        }
    }
    (!there.contains(&place)).then(|| modules[place].path.clone())
}

/// The names of the modules that this one needs, and the one by which others need it.
fn needed_by(module: &Module) -> (Vec<String>, Option<String>) {
    let Some(section) = &module.dynamic else { return (Vec::new(), None) };
    let entries = (section.start..section.end).step_by(size_of::<Entry>()).map(|place| {
        // SAFETY: the loader listed this section of a module that it has loaded, and used it itself: it lies in the module, and is
        // made of aligned entries, which are two numbers each. It stays mapped as long as the module does (see
        // `loaded_modules`), and nothing writes to it after the loader.
        unsafe { *(place as *const Entry) }
    });
    let entries: Vec<_> = entries.take_while(|entry| entry.tag != END).collect();
    let Some(strings) = entries.iter().find(|entry| entry.tag == STRINGS) else { return (Vec::new(), None) };
    // Some loaders put the address there, others leave the offset.
    let strings = if module.contains(strings.value) { strings.value } else { module.base.wrapping_add(strings.value) };
    let string = |entry: &Entry| {
        let place = strings.checked_add(entry.value).filter(|place| module.contains(*place))?;
        // SAFETY: within the module, in its table of strings, each of which ends with a zero, as the loader relies on too.
        let string = unsafe { CStr::from_ptr(place as *const _) };
        Some(string.to_string_lossy().into_owned())
    };
    let of = |tag| entries.iter().filter(move |entry| entry.tag == tag).filter_map(string);
    (of(NEEDED).collect(), of(NAME).next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_needs_is_there_at_its_start() {
        assert_eq!(loaded_later(loaded_later as *const () as usize), None);
        assert_eq!(loaded_later(libc::getpid as *const () as usize), None, "the C library");
        let on_the_stack = 0;
        assert_eq!(loaded_later(&raw const on_the_stack as usize), None, "in no module");
    }

    #[test]
    fn what_is_loaded_by_hand_came_later() {
        // Part of the C library, and needed by hardly any program.
        // SAFETY: it has no constructors that could matter.
        let library = unsafe { libc::dlopen(c"libanl.so.1".as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return eprintln!("skipped: this system has no such library");
        }
        let is_it = |module: &&Module| module.path.contains("libanl");
        let base = loaded_modules().iter().find(is_it).map(|module| module.base).expect("it is loaded");
        assert!(loaded_later(base).is_some_and(|path| path.contains("libanl")));
    }
}
