//! Functions that can be named in another process of the same program.
//!
//! A function pointer is an address, and an address means something else in every process. What
//! travels is the offset of the function in its module (the program, or a shared library that it
//! was started with), and the offset of a *descriptor*: a constant that the compiler makes for
//! each kind of call, which knows how to decode the arguments, make the call and encode the result.
//!
//! All of this `unsafe` is in this file, and rests on one premise that the receiver cannot check by
//! itself: **the sender is the same build of the same program** and wrote the two offsets with
//! [`Address::of`] from one submitted call. A backend establishes that once for each connection, by
//! comparing [`build_identity`]. Everything that can be checked for each call is: the descriptor
//! lies aligned in read-only data and carries a magic number; the function lies in executable
//! memory of its module. Whatever fails a check is refused with a reason, never jumped to.

#![expect(unsafe_code, reason = "a function pointer is made from an address, and the loaded modules are listed")]

use std::{ffi::CStr, fmt, mem, ops::Range, ptr, slice, sync::OnceLock};

pub use crate::call::{Address, CallName};
use crate::{
    attachments::Attachments,
    context::{ContextId, ContextParcel, ContextStore},
    error::Failure,
    function::{Bound, Function, Plain, Spread},
    payload::Payload,
    reply::{self, Ending},
    value::SharedValue,
};

/// What a worker was sent: a call by name, with its arguments.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// What to call.
    pub name: CallName,
    /// The shared context that the call wants.
    pub context: Option<ContextId>,
    /// The encoded arguments.
    pub args: Vec<u8>,
    /// What came with them.
    pub attachments: Attachments,
}

/// Makes a call that was sent here, and puts its reply into `out`, which is empty. With the mark of the ending behind them,
/// these are the bytes that [`Parcel::complete`](crate::task::Parcel::complete) takes at the other end. Whatever goes
/// wrong becomes a reply too.
///
/// # Safety
/// `call` was written by a process of the same build of this program, from one submitted call, and not changed since:
/// the [module's premise](self). Its addresses are checked as far as they can be, its types cannot.
pub unsafe fn answer(call: Incoming, contexts: &mut ContextStore, out: &mut Payload) -> Ending {
    match find(call.name) {
        // SAFETY: `locate` found executable memory of the named module at `function`. By this
        // function's contract both addresses were written by `name_of` for one call in a process of
        // the same build, where the function had the type that this descriptor's `run` expects.
        Ok((descriptor, function)) => unsafe { (descriptor.run)(function as *const (), call, contexts, out) },
        Err(reason) => reply::failure(&Failure::Refused(reason), out),
    }
}

/// The descriptor and the function that a name names here, or why there are none.
fn find(name: CallName) -> Result<(&'static Descriptor, usize), String> {
    Ok((descriptor_at(name.descriptor)?, locate(name.function, Region::Executable, 1)?))
}

/// Where the two are that a name names here. Calls nothing.
pub(crate) fn check_name(name: CallName) -> Result<(usize, usize), String> {
    find(name).map(|(descriptor, function)| (ptr::from_ref(descriptor) as usize, function))
}

/// What a reply tells a backend, which does not know the value's type: whether the call failed, and how.
///
/// # Errors
/// The call's failure.
pub fn check(reply: &[u8]) -> Result<(), Failure> {
    reply::read(reply, |_| Ok(()))
}

/// A kind of call that can be made from bytes.
pub(crate) trait Travels: 'static {
    type Function: Function<Self::Args>;
    type Args;

    /// Makes the call in the worker, appending a reply. Takes what came with the arguments.
    fn serve(function: Self::Function, args: Vec<u8>, attachments: Attachments, out: &mut Payload) -> Ending;
}

/// How calls of one kind are made from bytes. One constant for each kind.
#[repr(C, align(16))]
pub(crate) struct Descriptor {
    magic: u64,
    run: unsafe fn(*const (), Incoming, &mut ContextStore, &mut Payload) -> Ending,
}

/// Nothing else in read-only data is likely to carry it: a fixed number without meaning.
const MAGIC: u64 = 0x9d1c_62f4_3ba7_e085;

/// The constant for calls of kind `W`.
pub(crate) const fn descriptor<W: Travels>() -> &'static Descriptor {
    const { &Descriptor { magic: MAGIC, run: run::<W> } }
}

/// # Safety
/// `function` must be the address of the function pointer of some `W::Function`.
unsafe fn run<W: Travels>(
    function: *const (),
    call: Incoming,
    contexts: &mut ContextStore,
    out: &mut Payload,
) -> Ending {
    // SAFETY: passed on from this function's own contract.
    match unsafe { W::Function::from_address(function, call.context, contexts) } {
        Ok(function) => W::serve(function, call.args, call.attachments, out),
        Err(failure) => reply::failure(&failure, out),
    }
}

/// The name of the call of kind `W` on `function`.
pub(crate) fn name_of<W: Travels>(function: &W::Function) -> Result<CallName, Failure> {
    let descriptor = Address::of(descriptor::<W>() as *const Descriptor as usize);
    let function = Address::of(function.address() as usize);
    match (descriptor, function) {
        (Some(descriptor), Some(function)) => Ok(CallName { descriptor, function }),
        _ => Err(Failure::Refused(
            "the function is in no loaded module of this program, so no other process can find it".into(),
        )),
    }
}

/// A function that can be named in another process.
pub(crate) trait Named<A>: Sized {
    /// The context to be sent along.
    fn context(&self) -> Result<Option<ContextParcel>, Failure>;

    /// # Safety
    /// `address` must come from [`address`](Function::address) of a value of this very type, in this
    /// process or moved here by [`Address`].
    unsafe fn from_address(
        address: *const (),
        context: Option<ContextId>,
        contexts: &mut ContextStore,
    ) -> Result<Self, Failure>;
}

impl<A: 'static, R: 'static> Named<A> for Plain<A, R> {
    fn context(&self) -> Result<Option<ContextParcel>, Failure> {
        Ok(None)
    }

    unsafe fn from_address(address: *const (), _: Option<ContextId>, _: &mut ContextStore) -> Result<Self, Failure> {
        // SAFETY: by contract `address` is where a `fn(A) -> R` points; a function pointer and a
        // thin pointer have the same size and representation on every target of this crate.
        Ok(Plain(unsafe { mem::transmute::<*const (), fn(A) -> R>(address) }))
    }
}

impl<A: 'static, B: 'static, R: 'static> Named<(A, B)> for Spread<A, B, R> {
    fn context(&self) -> Result<Option<ContextParcel>, Failure> {
        Ok(None)
    }

    unsafe fn from_address(address: *const (), _: Option<ContextId>, _: &mut ContextStore) -> Result<Self, Failure> {
        // SAFETY: as in `Plain`, for a `fn(A, B) -> R`.
        Ok(Spread(unsafe { mem::transmute::<*const (), fn(A, B) -> R>(address) }))
    }
}

impl<C: SharedValue, A: 'static, R: 'static> Named<A> for Bound<C, A, R> {
    fn context(&self) -> Result<Option<ContextParcel>, Failure> {
        self.context.parcel().map(Some)
    }

    unsafe fn from_address(
        address: *const (),
        context: Option<ContextId>,
        contexts: &mut ContextStore,
    ) -> Result<Self, Failure> {
        let id = context.ok_or_else(|| Failure::Refused("its context is missing".into()))?;
        let context = contexts.get::<C>(id)?;
        // SAFETY: as in `Plain`, for a `fn(&C, A) -> R`.
        let function = unsafe { mem::transmute::<*const (), fn(&C, A) -> R>(address) };
        Ok(Bound { function, context })
    }
}

impl Address {
    /// The address of something in a loaded module, in the form that travels.
    #[must_use]
    pub fn of(address: usize) -> Option<Address> {
        let main = main_module();
        let inside = |module: &Module| {
            module.contains(address).then(|| Address { module: module.id, offset: (address - module.base) as u64 })
        };
        inside(main).or_else(|| loaded_modules().iter().find_map(inside))
    }
}

/// Identifies this build of this program: processes that agree on it agree on every offset.
///
/// A hash over the layout of the program's segments and the notes that the linker put into it, of
/// which one, the build id, is itself a hash of the program's contents.
#[must_use]
pub fn build_identity() -> u64 {
    main_module().identity
}

fn descriptor_at(address: Address) -> Result<&'static Descriptor, String> {
    let place = locate(address, Region::ReadOnly, size_of::<Descriptor>())? as *const Descriptor;
    if !place.is_aligned() {
        return Err(format!("{address} is not aligned for a descriptor"));
    }
    // SAFETY: `locate` found that many bytes of a loaded module's read-only data there, and they
    // are aligned; any bytes are a valid `u64`.
    let magic = unsafe { *place.cast::<u64>() };
    if magic != MAGIC {
        return Err(format!("{address} is not a descriptor"));
    }
    // SAFETY: only `descriptor` makes constants that start with the magic number, so this is one,
    // whole and initialised; it is constant and its module is never unloaded (see `locate`).
    Ok(unsafe { &*place })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Region {
    Executable,
    ReadOnly,
}

/// The address in this process, if `size` bytes there lie in such a region of the named module.
fn locate(address: Address, region: Region, size: usize) -> Result<usize, String> {
    let find = |module: &Module| {
        let start = module.base.checked_add(usize::try_from(address.offset).ok()?)?;
        let end = start.checked_add(size)?;
        let covers = |range: &Range<usize>| range.start <= start && end <= range.end;
        module.regions.iter().any(|(kind, range)| *kind == region && covers(range)).then_some(start)
    };
    let module = main_module();
    let found = if address.module == module.id {
        find(module)
    } else {
        match loaded_modules().iter().find(|module| module.id == address.module) {
            Some(module) => find(module),
            None => return Err(format!("{address} is in a module that this worker has not loaded")),
        }
    };
    found.ok_or_else(|| match region {
        Region::Executable => format!("{address} is not in executable memory"),
        Region::ReadOnly => format!("{address} is not in read-only data"),
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.module {
            0 => write!(f, "offset {:#x} of the program", self.offset),
            module => write!(f, "offset {:#x} of module {module:#x}", self.offset),
        }
    }
}

/// Something that the dynamic loader put into this process.
pub(crate) struct Module {
    id: u64,
    identity: u64,
    /// As the loader has it; empty for the program.
    pub(crate) path: String,
    pub(crate) base: usize,
    /// Where it says what it needs.
    pub(crate) dynamic: Option<Range<usize>>,
    regions: Vec<(Region, Range<usize>)>,
    whole: Range<usize>,
}

impl Module {
    pub(crate) fn contains(&self, address: usize) -> bool {
        self.whole.contains(&address)
    }
}

/// The program itself: it is never unloaded, so it is looked up once.
fn main_module() -> &'static Module {
    static MAIN: OnceLock<Module> = OnceLock::new();
    MAIN.get_or_init(|| {
        let mut main = loaded_modules().swap_remove(0);
        main.id = 0;
        main
    })
}

/// Every module, the program first. Libraries come and go, so this looks afresh.
///
/// A library found here could in principle be unloaded by another thread while it is being called.
/// The same holds for every call through a function pointer into it, so whoever unloads a library
/// must already be sure that nothing of it is in use.
pub(crate) fn loaded_modules() -> Vec<Module> {
    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, modules: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the loader passes a valid record for the duration of this call.
        let info = unsafe { &*info };
        // SAFETY: `modules` is the exclusive reference that `loaded_modules` passed in.
        let modules = unsafe { &mut *modules.cast::<Vec<Module>>() };
        modules.push(describe(info));
        0
    }
    let mut modules: Vec<Module> = Vec::new();
    // SAFETY: `visit` has the signature that is asked for, does not unwind (it allocates and adds
    // up numbers), and the pointer is the live, unaliased vector that it expects.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut modules).cast()) };
    modules
}

fn describe(info: &libc::dl_phdr_info) -> Module {
    let base = info.dlpi_addr as usize;
    // SAFETY: the loader's record has `dlpi_phnum` program headers at `dlpi_phdr`.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let mut hash = Fnv::default();
    let mut path = String::new();
    if !info.dlpi_name.is_null() {
        // SAFETY: not null, so it is a C string of the loader's.
        let name = unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes();
        hash.write(name.rsplit(|&byte| byte == b'/').next().unwrap_or(name));
        path = String::from_utf8_lossy(name).into_owned();
    }
    let (mut start_of_all, mut end_of_all) = (usize::MAX, 0);
    let mut regions = Vec::new();
    let mut dynamic = None;
    let is_readable = |range: &Range<usize>| {
        headers.iter().any(|header| {
            let start = base + header.p_vaddr as usize;
            let loaded = header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_R != 0;
            loaded && start <= range.start && range.end <= start + header.p_filesz as usize
        })
    };
    for header in headers {
        let start = base + header.p_vaddr as usize;
        let range = start..start + header.p_memsz as usize;
        hash.write(&[header.p_type, header.p_flags].map(u32::to_ne_bytes).concat());
        hash.write(&[header.p_vaddr, header.p_memsz].map(u64::to_ne_bytes).concat());
        match header.p_type {
            libc::PT_LOAD => {
                start_of_all = start_of_all.min(range.start);
                end_of_all = end_of_all.max(range.end);
                if header.p_flags & libc::PF_X != 0 {
                    regions.push((Region::Executable, range));
                } else if header.p_flags & libc::PF_W == 0 {
                    regions.push((Region::ReadOnly, range));
                }
            }
            // Constants that hold addresses: written once by the loader, then made read-only.
            libc::PT_GNU_RELRO => regions.push((Region::ReadOnly, range)),
            libc::PT_DYNAMIC if is_readable(&range) => dynamic = Some(range),
            libc::PT_NOTE if is_readable(&range) => {
                // SAFETY: within a loaded, readable segment of a module that the loader keeps for this call.
                hash.write(unsafe { slice::from_raw_parts(range.start as *const u8, range.len()) });
            }
            _ => {}
        }
    }
    // 0 names the program, whatever its identity.
    Module { id: hash.0 | 1, identity: hash.0, path, base, dynamic, regions, whole: start_of_all..end_of_all }
}

/// FNV-1a: a hash that is the same in every process, which the standard library's is not.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Single;

    type Inc = Single<Plain<u64, u64>, u64>;

    fn inc(x: u64) -> u64 {
        x + 1
    }

    fn incoming(name: CallName, args: Vec<u8>) -> Incoming {
        Incoming { name, context: None, args, attachments: Vec::new() }
    }

    fn reply_to(name: CallName) -> Result<u64, Failure> {
        let (mut args, mut out) = (Vec::new(), Payload::default());
        crate::codec::encode(&41_u64, &mut args).unwrap();
        // SAFETY: `name` is a call of this very process, or is refused before anything is called: that is the test.
        let ending = unsafe { answer(incoming(name, args), &mut ContextStore::default(), &mut out) };
        out.buffer().push(ending.mark);
        reply::read(&out.into_vec(), crate::codec::decode)
    }

    #[test]
    fn a_named_function_is_found_and_called() {
        let name = name_of::<Inc>(&Plain(inc)).unwrap();
        assert_eq!(name.function.module, 0);
        assert_eq!(reply_to(name).unwrap(), 42);
    }

    /// Every check refuses with its reason, and nothing is called.
    #[test]
    fn whatever_is_not_a_call_is_refused() {
        static WRITABLE: std::sync::Mutex<[u64; 4]> = std::sync::Mutex::new([MAGIC; 4]);
        static CONSTANT: [u64; 4] = [1, 2, 3, 4];
        let good = name_of::<Inc>(&Plain(inc)).unwrap();
        let at = |place: usize| Address::of(place).unwrap();
        let shifted = |address: Address, by: u64| Address { offset: address.offset + by, ..address };
        let stack = 0_u64;
        assert_eq!(Address::of(&raw const stack as usize), None, "the stack is in no module");
        let table = [
            (CallName { descriptor: at(&raw const WRITABLE as usize), ..good }, "not in read-only data"),
            (CallName { descriptor: at(&raw const CONSTANT as usize & !15), ..good }, "not a descriptor"),
            (CallName { descriptor: shifted(good.descriptor, 8), ..good }, "not aligned"),
            (CallName { descriptor: at(inc as *const () as usize & !15), ..good }, "not in read-only data"),
            (CallName { function: at(&raw const WRITABLE as usize), ..good }, "not in executable memory"),
            (CallName { function: at(&raw const CONSTANT as usize), ..good }, "not in executable memory"),
            (CallName { function: Address { module: 0, offset: u64::MAX }, ..good }, "not in executable memory"),
            (CallName { descriptor: Address { module: 0, offset: u64::MAX - 15 }, ..good }, "not in read-only data"),
            (CallName { function: Address { module: 77, offset: 0 }, ..good }, "has not loaded"),
        ];
        for (name, expected) in table {
            match reply_to(name) {
                Err(Failure::Refused(reason)) => assert!(reason.contains(expected), "{reason} / {expected}"),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_identity_is_the_same_each_time() {
        assert_eq!(build_identity(), build_identity());
        assert_ne!(build_identity(), Fnv::default().0, "something was hashed");
    }
}
