//! Memory that processes share to read: a file that is only in memory, mapped by whoever has its descriptor.
//!
//! It is sealed before anybody else sees it: the kernel refuses every way to write to it, and to change its length, also to who
//! has made it. On this rests that a slice of it is a plain `&[u8]`, though other processes have the same memory. A descriptor that
//! comes from elsewhere is not believed: it is mapped only if the kernel itself says that it is such a file.
//!
//! Each file is mapped once in a process, however often it arrives, for as long as somebody uses it, a worker for a moment longer. It has no name that
//! could be left behind: with the last mapping and the last descriptor it is gone, however the processes ended.

#![expect(unsafe_code, reason = "memory is mapped, and looked at as a slice")]

use executor_core::sync::Mutex;
use rustix::{
    fs::{
        FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs,
        memfd_create,
    },
    io::{Errno, retry_on_intr},
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap},
};
use std::{
    collections::HashMap,
    fmt,
    fs::File,
    hint,
    io::{self, Seek},
    num::NonZeroUsize,
    os::fd::{AsFd, OwnedFd},
    ptr::{self, NonNull},
    slice,
    sync::{Arc, Weak},
};

/// What makes the file constant, for ever.
const CONSTANT: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE).union(SealFlags::SEAL);

/// The file system of files that are only in memory. One with huge pages is another, and its memory may be missing when it is
/// touched.
const TMPFS: i64 = 0x0102_1994;

/// What is mapped in this process.
static MAPPED: Mutex<Option<HashMap<FileId, Weak<Segment>>>> = Mutex::new(None);

/// Device and number of a file. The kernel gives them to no other while this one is open.
type FileId = (u64, u64);

/// Constant memory. It has at least one byte.
pub(crate) struct Segment {
    mapping: Mapping,
    file: Arc<OwnedFd>,
    id: FileId,
}

impl Segment {
    /// One that holds what `write` writes; `None` for nothing.
    pub(crate) fn written(write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Option<Arc<Segment>>> {
        let mut file = create()?;
        write(&mut file)?;
        if file.metadata()?.len() == 0 {
            return Ok(None);
        }
        seal(&file)?;
        Segment::of(Arc::new(file.into())).map(Some)
    }

    /// One of `length` bytes, which are zero until `fill` has changed them in place.
    pub(crate) fn filled(length: NonZeroUsize, fill: impl FnOnce(&mut [u8])) -> io::Result<Arc<Segment>> {
        // The kernel promises files any length, and kills somebody when it is to keep the promise. Of other memory it refuses
        // what the machine cannot have.
        let mut other = Vec::<u8>::new();
        other.try_reserve_exact(length.get())?;
        drop(hint::black_box(other));
        let mut file = create()?;
        // All of it now, which costs less than page by page; what a limit refuses is an error here, and would be a signal later.
        retry_on_intr(|| fallocate(&file, FallocateFlags::empty(), 0, length.get() as u64))?;
        let mut mapping = Mapping::to_write(&file, length)?;
        fill(mapping.bytes_mut());
        drop(mapping);
        match seal(&file) {
            Ok(()) => Segment::of(Arc::new(file.into())),
            // Another thread has forked before the mapping was told to stay here, and the new process can write to it. What it
            // has is not what we go on with.
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                file.rewind()?;
                let copy = Segment::written(|out| io::copy(&mut file, out).map(drop))?;
                copy.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
            }
            Err(error) => Err(error),
        }
    }

    /// The one behind `file`, which came from elsewhere.
    ///
    /// # Errors
    /// It is not sealed memory with something in it.
    pub(crate) fn of(file: Arc<OwnedFd>) -> io::Result<Arc<Segment>> {
        let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        // The question itself is an error for files of other kinds.
        if !fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(CONSTANT)) || fstatfs(&file)?.f_type != TMPFS {
            return refused("a descriptor is not of sealed memory");
        }
        let about = fstat(&file)?;
        let Some(length) = usize::try_from(about.st_size).ok().and_then(NonZeroUsize::new) else {
            return refused("a descriptor is of memory without anything in it");
        };
        let id = (about.st_dev, about.st_ino);
        let mut mapped = MAPPED.lock();
        let mapped = mapped.get_or_insert_default();
        if let Some(known) = mapped.get(&id).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let mapping = Mapping::to_read(&file, length)?;
        let segment = Arc::new(Segment { mapping, file, id });
        mapped.insert(id, Arc::downgrade(&segment));
        Ok(segment)
    }

    /// Those of the descriptors that are such memory, and can be mapped.
    pub(crate) fn all_of(descriptors: &[Arc<OwnedFd>]) -> Vec<Arc<Segment>> {
        descriptors.iter().filter_map(|file| Segment::of(Arc::clone(file)).ok()).collect()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped to be read until `self` is dropped, of this length, and initialised, as all memory of a file is. By its
        // seals, which `of` has seen, neither this process nor another can change what is in it, or make it shorter.
        unsafe { slice::from_raw_parts(self.mapping.start.as_ptr(), self.mapping.length.get()) }
    }

    /// What another process needs to have it too.
    pub(crate) fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // Another may have been made of the same file since the last handle went.
        if let Some(mapped) = &mut *MAPPED.lock()
            && mapped.get(&self.id).is_some_and(|entry| entry.strong_count() == 0)
        {
            mapped.remove(&self.id);
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({} bytes)", self.mapping.length)
    }
}

fn create() -> io::Result<File> {
    Ok(File::from(memfd_create("executor-shared", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?))
}

fn seal(file: &File) -> io::Result<()> {
    Ok(fcntl_add_seals(file, CONSTANT)?)
}

/// Where a file lies in this process's memory.
struct Mapping {
    start: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: a mapping belongs to no thread; it is written through an exclusive reference only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn to_read(file: impl AsFd, length: NonZeroUsize) -> io::Result<Mapping> {
        // Private, since older kernels refuse a shared mapping of a sealed file, lest it be made writable. It is never written
        // to, so the pages are those of the file.
        Mapping::new(file, length, ProtFlags::READ, MapFlags::PRIVATE)
    }

    fn to_write(file: impl AsFd, length: NonZeroUsize) -> io::Result<Mapping> {
        // All of it will be written.
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        let mapping = Mapping::new(file, length, ProtFlags::READ | ProtFlags::WRITE, flags)?;
        // SAFETY: the whole of a mapping of our own, which the advice changes for processes that do not yet exist.
        unsafe { madvise(mapping.start.as_ptr().cast(), length.get(), Advice::LinuxDontFork)? };
        Ok(mapping)
    }

    fn new(file: impl AsFd, length: NonZeroUsize, access: ProtFlags, flags: MapFlags) -> io::Result<Mapping> {
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { mmap(ptr::null_mut(), length.get(), access, flags, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("the kernel mapped memory at zero"))?;
        Ok(Mapping { start, length })
    }

    /// Of a mapping to write.
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: mapped until `self` is dropped, to be read and written, by `to_write`, whose only caller calls this; of this
        // length, allocated by `filled` before, and initialised, as all memory of a file is. It is borrowed exclusively here,
        // and nobody else has the file's descriptor yet, so nobody else has it mapped. (A process that was forked in the moment
        // before the advice has a mapping too. It holds a copy of the thread that forked, and not of this one, which alone knows
        // where the mapping is.)
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length.get()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole of the mapping that `new` made; references into it borrow `self`. An error would mean that it was
        // never mapped; nothing can be done about it here.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::ftruncate;
    use std::io::Write;

    fn descriptor_of(segment: &Segment) -> Arc<OwnedFd> {
        Arc::new(segment.file().try_clone().unwrap())
    }

    fn is_mapped(segment: FileId) -> bool {
        MAPPED.lock().as_ref().is_some_and(|mapped| mapped.contains_key(&segment))
    }

    /// MEM-06: nothing is left behind.
    #[test]
    fn a_file_is_mapped_once_while_somebody_uses_it() {
        let made = Segment::written(|file| file.write_all(b"words")).unwrap().unwrap();
        let found = Segment::of(descriptor_of(&made)).unwrap();
        assert!(Arc::ptr_eq(&made, &found));
        assert_eq!(found.bytes(), b"words");
        let (descriptor, key) = (descriptor_of(&made), made.id);
        drop((made, found));
        assert!(!is_mapped(key));
        assert_eq!(Segment::of(descriptor).unwrap().bytes(), b"words");
        assert!(!is_mapped(key));
        assert!(Segment::written(|_| Ok(())).unwrap().is_none());
    }

    #[test]
    fn what_is_filled_is_sealed() {
        let page = NonZeroUsize::new(5000).unwrap();
        let segment = Segment::filled(page, |bytes| bytes[4999] = 7).unwrap();
        assert!(segment.bytes()[..4999].iter().all(|byte| *byte == 0));
        assert_eq!(segment.bytes()[4999], 7);
        let mut file = File::from(segment.file().try_clone().unwrap());
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(1).is_err());
        assert!(Mapping::to_write(&file, page).is_err());
    }

    /// A process that was forked meanwhile and keeps the memory can write only to what nobody uses.
    #[test]
    fn memory_that_somebody_else_can_write_is_left_to_him() {
        let length = NonZeroUsize::new(3).unwrap();
        let mut theirs = None;
        let segment = Segment::filled(length, |bytes| {
            bytes.copy_from_slice(b"abc");
            // The same file once more, as a forked process would have it.
            theirs = writable_mapping_of(bytes, length);
        })
        .unwrap();
        let mut theirs = theirs.expect("it was found");
        theirs.bytes_mut()[0] = b'X';
        assert_eq!(segment.bytes(), b"abc");
    }

    /// A second mapping of the file that is mapped at `bytes`.
    fn writable_mapping_of(bytes: &[u8], length: NonZeroUsize) -> Option<Mapping> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let start = format!("{:x}-", bytes.as_ptr() as usize);
        let line = maps.lines().find(|line| line.starts_with(&start))?;
        let inode: u64 = line.split_whitespace().nth(4)?.parse().ok()?;
        std::fs::read_dir("/proc/self/fd").unwrap().find_map(|entry| {
            let file = File::options().read(true).write(true).open(entry.unwrap().path()).ok()?;
            (fstat(&file).unwrap().st_ino == inode).then(|| Mapping::to_write(&file, length).unwrap())
        })
    }

    /// Each way in which a descriptor is not what it should be.
    #[test]
    fn what_is_no_sealed_memory_is_refused() {
        let refused = |file: File, what: &str| {
            let error = Segment::of(Arc::new(file.into())).expect_err(what);
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}");
        };
        refused(File::open("/proc/self/exe").unwrap(), "a file");
        refused(File::open("/dev/null").unwrap(), "a device");
        let (reader, _writer) = io::pipe().unwrap();
        refused(File::from(OwnedFd::from(reader)), "a pipe");
        let of_seals = |length: u64, seals: SealFlags| {
            let file = create().unwrap();
            ftruncate(&file, length).unwrap();
            fcntl_add_seals(&file, seals).unwrap();
            file
        };
        for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::WRITE, SealFlags::SEAL] {
            refused(of_seals(8, CONSTANT - missing), "a seal is missing");
        }
        refused(of_seals(0, CONSTANT), "nothing is in it");
        assert_eq!(Segment::of(Arc::new(of_seals(8, CONSTANT).into())).unwrap().bytes(), [0; 8]);
    }
}
