use crate::support::{Backend, Gate, eventually, pass};
use concurrent_futures::{Context, Executor, RetryPolicy, Shared, TaskOptions};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, memfd_create};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Seek, Write},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
    process,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

/// The number of the file that is mapped at this place, as the kernel tells it.
fn file_behind<T>(items: &[T]) -> u64 {
    let place = items.as_ptr() as usize;
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut lines = maps.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (start, end) = fields[0].split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start) <= place && place < number(end)).then(|| fields[4].parse().unwrap())
    });
    lines.next().expect("it is mapped")
}

/// Whether this process has the memory mapped, or open.
fn has(file: u64) -> bool {
    let is_shared = |name: &str| name.contains("memfd:executor-shared");
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps.lines().any(|line| is_shared(line) && line.split_whitespace().nth(4) == Some(&file.to_string()));
    let mut open = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let is_it = |path: &Path| fs::metadata(path).is_ok_and(|found| found.ino() == file);
    mapped || open.any(|path| fs::read_link(&path).is_ok_and(|name| is_shared(&name.to_string_lossy())) && is_it(&path))
}

/// MEM-01, MEM-07: without a copy, whatever its size: it is the same file on both sides. A `Vec` is a `Vec` at the other end, too.
pub(crate) fn large_slices_go_there_and_back<B: Backend>() {
    let pool = B::pool(2);
    let data = Shared::from_items((0..1 << 20).map(f64::from)).unwrap();
    let (sum, file, back) = pool
        .submit(|data: Shared<[f64]>| (data.iter().sum::<f64>(), file_behind(&data), data), data.clone())
        .result()
        .unwrap();
    assert_eq!(sum, f64::from((1 << 20) - 1) * f64::from(1 << 19));
    assert_eq!((file, back.as_ptr()), (file_behind(&data), data.as_ptr()));

    let build = |length| {
        let made = Shared::build(length, |bytes: &mut [u8]| bytes.fill(7)).unwrap();
        (process::id(), file_behind(&made), made)
    };
    let (_, file, made) = pool.submit(build, 5 << 20).result().unwrap();
    assert!(made.len() == 5 << 20 && made.iter().all(|byte| *byte == 7));
    assert_eq!(file, file_behind(&made));

    let regular: Vec<f64> = pool.submit(|data: Shared<[f64]>| data[..4].to_vec(), data).result().unwrap();
    assert_eq!(regular, [0.0, 1.0, 2.0, 3.0]);
    let empty = pool.submit(|empty: Shared<[u16]>| empty, Shared::new([]).unwrap()).result().unwrap();
    assert!(empty.is_empty());
}

/// MEM-03.
pub(crate) fn what_a_task_changes_is_its_own<B: Backend>() {
    let pool = B::pool(2);
    let data = Shared::new(vec![0_u32; 100_000]).unwrap();
    let change = |(data, number): (Shared<[u32]>, u32)| {
        let mut own = data.to_vec();
        own.fill(number);
        (own, data)
    };
    for (number, outcome) in (1..=8).zip(pool.map(change, (1..=8).map(|number| (data.clone(), number)))) {
        let (own, data) = outcome.unwrap();
        assert!(own.iter().all(|item| *item == number) && data.iter().all(|item| *item == 0));
    }
    assert!(data.iter().all(|item| *item == 0));
}

/// MEM-04: and once more for what differs.
pub(crate) fn the_same_memory_is_mapped_once<B: Backend>() {
    static KEPT: Mutex<Vec<Shared<[u64]>>> = Mutex::new(Vec::new());
    let keep = |(one, other): (Shared<[u64]>, Shared<[u64]>)| {
        assert_eq!(one.as_ptr(), other.as_ptr());
        let mut kept = KEPT.lock().unwrap();
        kept.push(one);
        kept.iter().map(|data| data.as_ptr() as usize).collect::<BTreeSet<_>>().len()
    };
    let pool = B::pool(1);
    let data = Shared::new(vec![7_u64; 1 << 16]).unwrap();
    for _ in 0..30 {
        assert_eq!(pool.submit(keep, (data.clone(), data.clone())).result().unwrap(), 1);
    }
    let same = Shared::new(vec![7_u64; 1 << 16]).unwrap();
    assert_eq!(pool.submit(keep, (same.clone(), same)).result().unwrap(), 2);
    pool.submit(|()| KEPT.lock().unwrap().clear(), ()).result().unwrap();

    // As a context it stays in a worker from call to call.
    let context = Context::new(data);
    let place = |data: &Shared<[u64]>, number: usize| (data.as_ptr() as usize, data[number]);
    let places: BTreeSet<_> = pool.map_with(&context, place, 0..30).chunk_size(1).map(Result::unwrap).collect();
    assert_eq!(places.len(), 1);
}

/// MEM-06: also when a worker dies in the middle of a call.
pub(crate) fn nothing_is_left_behind<B: Backend>() {
    let pool = B::pool(1);
    let data = Shared::new(vec![7_u8; 1 << 20]).unwrap();
    let file = file_behind(&data);
    assert!(has(file));
    assert!(
        pool.submit(|(data, file): (Shared<[u8]>, _)| data[0] == 7 && has(file), (data.clone(), file))
            .result()
            .unwrap()
    );
    let gate = Gate::new();
    let waiting = pool.submit(|(key, _data): (_, Shared<[u8]>)| pass(key), (gate.key(), data.clone()));
    gate.await_arrivals(1);
    if waiting.kill() {
        assert!(waiting.result().is_err());
    } else {
        gate.open(); // a thread
        waiting.result().unwrap();
    }
    drop(data);
    // The pool lets go of a call soon after its future is done.
    eventually("the memory is gone", || !has(file));
    assert!(!pool.submit(has, file).result().unwrap(), "in the worker");
}

/// MEM-08: at odd places, in any order, of any type. What is more than a slice, such as rows and columns, is numbers beside it; the
/// order of bytes is the machine's, on which both sides run.
pub(crate) fn parts_stay_where_they_are<B: Backend>() {
    #[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(C)]
    struct Point {
        x: f32,
        y: f32,
        number: u32,
    }
    #[derive(Serialize, Deserialize)]
    struct Column {
        items: Shared<[u16]>,
        first: usize,
        stride: usize,
    }
    let pool = B::pool(2);
    let points = Shared::from_items((0..10_000).map(|number| Point { x: 0.5, y: number as f32, number })).unwrap();
    let tail = points.slice(1..).slice(9_000..=9_500);
    let (numbers, file, part) = pool
        .submit(
            |part: Shared<[Point]>| {
                (part.iter().map(|point| point.number).collect::<Vec<_>>(), file_behind(&part), part.slice(2..4))
            },
            tail,
        )
        .result()
        .unwrap();
    assert!(numbers.into_iter().eq(9_001..=9_501));
    assert_eq!(file, file_behind(&points));
    assert_eq!(part[..], points[9_003..9_005]);
    assert_eq!(part.as_ptr(), points[9_003..].as_ptr());

    // A matrix of 3 columns, from its second row on.
    let items = Shared::from_items(0..300_u16).unwrap().slice(3..);
    let sum = |column: Column| column.items[column.first..].iter().step_by(column.stride).map(|x| u64::from(*x)).sum();
    let columns = (0..3).map(|first| Column { items: items.clone(), first, stride: 3 });
    let sums: Vec<u64> = pool.map(sum, columns).collect::<Result<_, _>>().unwrap();
    let expected: Vec<u64> = (0..3).map(|first| (1..100).map(|row| row * 3 + first).sum()).collect();
    assert_eq!(sums, expected);
}

/// MEM-09: sealed memory as it is; a file, which others can change and cut off, by a copy.
pub(crate) fn memory_of_the_callers_own_is_taken<B: Backend>() {
    let pool = B::pool(1);
    let own = || {
        let mut file = File::from(memfd_create("own", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap());
        file.write_all(bytemuck::cast_slice(&[1.5_f64, 2.5])).unwrap();
        file
    };
    let sealed = own();
    fcntl_add_seals(&sealed, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL).unwrap();
    let number = fstat(&sealed).unwrap().st_ino;
    let data = Shared::<[f64]>::try_from(OwnedFd::from(sealed)).unwrap();
    let seen = pool.submit(|data: Shared<[f64]>| (data[1], file_behind(&data)), data).result().unwrap();
    assert_eq!(seen, (2.5, number));
    let refused = Shared::<[f64]>::try_from(OwnedFd::from(own())).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);

    let mut changing = own();
    changing.rewind().unwrap();
    let data = Shared::<[f64]>::read_from(&changing).unwrap();
    changing.set_len(0).unwrap();
    assert_eq!(pool.submit(|data: Shared<[f64]>| data.to_vec(), data).result().unwrap(), [1.5, 2.5]);
}

/// Arguments are copied, or sent once more, for another attempt.
pub(crate) fn another_attempt_has_the_same_memory<B: Backend>() {
    static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
    let pool = B::pool(1);
    let data = Shared::new([1_u8, 2, 3]).unwrap();
    let file = file_behind(&data);
    let late = |data: Shared<[u8]>| {
        assert!(ATTEMPTS.fetch_add(1, Ordering::Relaxed) > 1, "too early");
        file_behind(&data)
    };
    let patient = TaskOptions::new().retry(RetryPolicy::attempts(3));
    assert_eq!(pool.with(patient).submit(late, data).result().unwrap(), file);
    pool.submit(|()| ATTEMPTS.store(0, Ordering::Relaxed), ()).result().unwrap();
}
