//! How many processors this process may use, and what allows no more.
//!
//! A machine has its processors. Of these a process may be bound to some (*affinity*: `taskset`, a container's set of
//! processors), and a control group may give it less time than they have (*quota*: `cpu.max`, `docker run --cpus`).
//! The least of these counts. Who knows better says so in the environment.
//!
//! What cannot be found out limits nothing, and is never an error.

use std::{
    collections::HashSet,
    env, fmt, fs,
    num::{NonZeroU64, NonZeroUsize},
    ops::RangeInclusive,
    path::{Component, Path, PathBuf},
    sync::OnceLock,
    thread,
};

use crate::error::BuildError;

/// The environment variable that overrides [`cpu_count`], if it is a number from 1 on.
pub const CPU_COUNT_VARIABLE: &str = "CONCURRENT_FUTURES_CPU_COUNT";

/// How many processors this process may use, at least 1: what pools have as `max_workers` unless told.
///
/// It is found out anew each time, by reading a few files. [`CpuCount`] tells how it comes about.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ThreadPoolExecutor, cpu_count};
///
/// let pool = ThreadPoolExecutor::builder().build()?;
/// assert_eq!(pool.max_workers(), cpu_count());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn cpu_count() -> NonZeroUsize {
    CpuCount::detect().usable()
}

/// How many workers joblib's `n_jobs` asks for: a positive number is meant as it stands, -1 is all processors that this
/// process may use, -2 all but one, and so on, at least 1.
///
/// # Errors
/// [`BuildError::Jobs`] for 0.
///
/// # Examples
/// ```
/// use concurrent_futures::{cpu_count, effective_n_jobs};
///
/// assert_eq!(effective_n_jobs(3)?.get(), 3);
/// assert_eq!(effective_n_jobs(-1)?, cpu_count());
/// assert_eq!(effective_n_jobs(-1_000_000)?.get(), 1);
/// assert!(effective_n_jobs(0).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn effective_n_jobs(n_jobs: i64) -> Result<NonZeroUsize, BuildError> {
    jobs(n_jobs, cpu_count())
}

fn jobs(n_jobs: i64, processors: NonZeroUsize) -> Result<NonZeroUsize, BuildError> {
    let size = usize::try_from(n_jobs.unsigned_abs()).unwrap_or(usize::MAX);
    match n_jobs {
        0 => Err(BuildError::Jobs),
        1.. => Ok(at_least_one(size)),
        _ => Ok(at_least_one(processors.get().saturating_sub(size - 1))),
    }
}

fn at_least_one(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}

/// What is known of the processors, and what follows for this process.
///
/// # Examples
/// ```
/// use concurrent_futures::cpu::CpuCount;
///
/// let cpus = CpuCount::detect();
/// println!("{} of {} processors: {}", cpus.usable(), cpus.logical(), cpus.reason());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuCount {
    logical: NonZeroUsize,
    physical: Option<NonZeroUsize>,
    affinity: Option<NonZeroUsize>,
    quota: Option<f64>,
    environment: Option<NonZeroUsize>,
}

/// What decides how many processors are usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// [`CPU_COUNT_VARIABLE`] is set.
    Environment,
    /// The process is bound to some of the processors.
    Affinity,
    /// A control group gives it no more time.
    Quota,
    /// Nothing: the machine has no more.
    Machine,
}

impl CpuCount {
    /// Finds out, each time anew. Only physical cores are looked up once: they stay as they are.
    #[must_use]
    pub fn detect() -> Self {
        static PHYSICAL: OnceLock<Option<NonZeroUsize>> = OnceLock::new();
        let files = Files { root: Path::new("/") };
        let physical = *PHYSICAL.get_or_init(|| files.physical());
        Self::read(&files, physical, affinity(), env::var(CPU_COUNT_VARIABLE).ok().as_deref())
    }

    fn read(
        files: &Files<'_>,
        physical: Option<NonZeroUsize>,
        affinity: Option<NonZeroUsize>,
        environment: Option<&str>,
    ) -> Self {
        let logical = files.logical().or(affinity).or_else(|| thread::available_parallelism().ok());
        CpuCount {
            logical: logical.unwrap_or(NonZeroUsize::MIN),
            physical,
            affinity,
            quota: files.quota(),
            environment: environment.and_then(|count| count.trim().parse().ok()),
        }
    }

    /// The machine's processors that are online, as the system counts them: two for a core with two threads.
    #[must_use]
    pub fn logical(&self) -> NonZeroUsize {
        self.logical
    }

    /// The machine's cores that are online; `None` when the system does not say which processors share one.
    #[must_use]
    pub fn physical(&self) -> Option<NonZeroUsize> {
        self.physical
    }

    /// The processors to which this thread is bound, and with it the threads and processes that it starts. `None` when
    /// the system does not say: one other than Linux, or one with more than 1024 processors.
    #[must_use]
    pub fn affinity(&self) -> Option<NonZeroUsize> {
        self.affinity
    }

    /// The least quota of this process's control group and of those around it, in processors: 1.5 is three seconds of
    /// computing in every two. `None` when there is none.
    #[must_use]
    pub fn quota(&self) -> Option<f64> {
        self.quota
    }

    /// What [`CPU_COUNT_VARIABLE`] says; `None` unless it is a number from 1 on.
    #[must_use]
    pub fn environment(&self) -> Option<NonZeroUsize> {
        self.environment
    }

    /// How many processors this process may use: what the environment says; without it the least of
    /// [`logical`](Self::logical), [`affinity`](Self::affinity) and [`quota`](Self::quota), rounded up.
    #[must_use]
    pub fn usable(&self) -> NonZeroUsize {
        self.decide().0
    }

    /// What decides that [`usable`](Self::usable) is as it is.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.decide().1
    }

    /// How many cores this process may use, for work that gains nothing from a core's second thread.
    ///
    /// That is [`physical`](Self::physical), or [`logical`](Self::logical) where the former is unknown. Where
    /// something restricts the process to fewer processors than the machine has, this is [`usable`](Self::usable):
    /// nobody knows which cores they are on.
    #[must_use]
    pub fn usable_physical(&self) -> NonZeroUsize {
        let usable = self.usable();
        if usable == self.logical { self.physical.unwrap_or(usable) } else { usable }
    }

    fn decide(&self) -> (NonZeroUsize, Reason) {
        if let Some(count) = self.environment {
            return (count, Reason::Environment);
        }
        let machine = (self.logical, Reason::Machine);
        // Half a processor is time on one, so a part counts as a whole.
        let quota = self.quota.map(|processors| at_least_one(processors.ceil() as usize));
        let limits = [self.affinity.map(|count| (count, Reason::Affinity)), quota.map(|count| (count, Reason::Quota))];
        // The first of equals is taken: what allows all that there is decides nothing.
        limits.into_iter().flatten().fold(machine, |least, limit| if limit.0 < least.0 { limit } else { least })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Environment => write!(f, "{CPU_COUNT_VARIABLE} says so"),
            Reason::Affinity => write!(f, "this process is bound to so many processors"),
            Reason::Quota => write!(f, "the quota of a control group allows no more"),
            Reason::Machine => write!(f, "the machine has so many"),
        }
    }
}

#[cfg(target_os = "linux")]
fn affinity() -> Option<NonZeroUsize> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    NonZeroUsize::new(set.count() as usize)
}

#[cfg(not(target_os = "linux"))]
fn affinity() -> Option<NonZeroUsize> {
    None
}

/// What the system tells in files. The root is `/`, but for tests.
struct Files<'a> {
    root: &'a Path,
}

impl Files<'_> {
    fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let path = path.as_ref();
        let bytes = fs::read(self.root.join(path.strip_prefix("/").unwrap_or(path))).ok()?;
        // One mount with an odd name must not hide the others.
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The numbers of the processors that are online.
    fn online(&self) -> Option<Vec<RangeInclusive<u32>>> {
        let list = self.read("/sys/devices/system/cpu/online")?;
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some(first.parse().ok()?..=last.parse().ok()?)
        };
        list.trim().split(',').map(range).collect()
    }

    fn logical(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.online()?.into_iter().map(Iterator::count).sum())
    }

    /// How many different sets of processors share a core. The cores' own numbers will not do: they repeat in another
    /// package, on some machines also in another die or cluster.
    fn physical(&self) -> Option<NonZeroUsize> {
        let sharing = |cpu: u32| {
            let topology = |file: &str| self.read(format!("/sys/devices/system/cpu/cpu{cpu}/topology/{file}"));
            topology("core_cpus_list").or_else(|| topology("thread_siblings_list")) // so before Linux 5.3
        };
        let cores: Option<HashSet<String>> = self.online()?.into_iter().flatten().map(sharing).collect();
        NonZeroUsize::new(cores?.len())
    }

    /// The least quota on the way from this process's control groups up to where they are mounted.
    fn quota(&self) -> Option<f64> {
        let (groups, mounts) = (self.read("/proc/self/cgroup")?, self.read("/proc/self/mountinfo")?);
        let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
        let mut least: Option<f64> = None;
        for group in groups.lines().filter_map(Group::parse) {
            for mount in &mounts {
                let Some(own) = mount.directory_of(&group) else { continue };
                for directory in own.ancestors().take_while(|directory| directory.starts_with(&mount.point)) {
                    if let Some(limit) = self.limit(group.version, directory) {
                        least = Some(least.map_or(limit, |least| least.min(limit)));
                    }
                }
            }
        }
        least
    }

    /// The quota of one control group. `max`, `-1`, zero and whatever is no number are none.
    fn limit(&self, version: Version, directory: &Path) -> Option<f64> {
        let file = |name| self.read(directory.join(name));
        let (quota, period) = match version {
            Version::V1 => (file("cpu.cfs_quota_us")?, file("cpu.cfs_period_us")?),
            Version::V2 => {
                let both = file("cpu.max")?;
                both.trim().split_once(' ').map(|(quota, period)| (quota.to_owned(), period.to_owned()))?
            }
        };
        let microseconds = |text: &str| text.trim().parse::<NonZeroU64>().ok();
        Some(microseconds(&quota)?.get() as f64 / microseconds(&period)?.get() as f64)
    }
}

/// The two kinds of control groups. A system may have both at once.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    V1,
    V2,
}

/// A control group of this process that may have a quota: a line of `/proc/self/cgroup`.
struct Group<'a> {
    version: Version,
    path: &'a Path,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let (_number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let version = match controllers {
            "" => Version::V2,
            _ if controllers.split(',').any(|name| name == "cpu") => Version::V1,
            _ => return None,
        };
        Some(Group { version, path: Path::new(path) })
    }
}

/// Where control groups can be read: a line of `/proc/self/mountinfo`.
struct Mount {
    version: Version,
    /// The group that is seen at `point`. In a container it is often the container's own.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let (system, _source, options) = (kind.next()?, kind.next()?, kind.next()?);
        let version = match system {
            "cgroup2" => Version::V2,
            "cgroup" if options.split(',').any(|name| name == "cpu") => Version::V1,
            _ => return None,
        };
        let mut place = place.split(' ').skip(3).map(unescaped);
        Some(Mount { version, root: place.next()?.into(), point: place.next()?.into() })
    }

    /// Where the group is to be read, if it lies within what is mounted here. A process that was moved out of its
    /// namespace has a group such as `/../other`, which does not.
    fn directory_of(&self, group: &Group<'_>) -> Option<PathBuf> {
        let below = group.path.strip_prefix(&self.root).ok()?;
        let within = below.components().all(|part| matches!(part, Component::Normal(_)));
        (self.version == group.version && within).then(|| self.point.join(below))
    }
}

/// A path of `mountinfo`, where blanks and backslashes are octal numbers.
fn unescaped(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        process,
        sync::atomic::{AtomicU32, Ordering},
    };

    /// A file system of the test's own, removed with its value.
    struct Fake(PathBuf);

    impl Fake {
        fn new(files: &[(&str, &str)]) -> Fake {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let fake = Fake(env::temp_dir().join(format!("executor-core-cpu-{}-{number}", process::id())));
            fs::create_dir_all(&fake.0).unwrap();
            for (path, text) in files {
                fake.write(path, text);
            }
            fake
        }

        /// A machine of two packages with two cores each, and two threads on each core. Cores have the same numbers in
        /// both packages.
        fn machine() -> Fake {
            let fake = Fake::new(&[("sys/devices/system/cpu/online", "0-3,4-7\n")]);
            for cpu in 0..8 {
                let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
                fake.write(&format!("{topology}/physical_package_id"), &format!("{}\n", cpu % 4 / 2));
                fake.write(&format!("{topology}/core_id"), &format!("{}\n", cpu % 2));
                fake.write(&format!("{topology}/core_cpus_list"), &format!("{},{}\n", cpu % 4, cpu % 4 + 4));
            }
            fake
        }

        /// With a control group of version 2 for this process.
        fn with_quota(self, cpu_max: &str) -> Fake {
            self.write("proc/self/cgroup", "0::/job\n");
            self.write("proc/self/mountinfo", V2);
            self.write("sys/fs/cgroup/job/cpu.max", cpu_max);
            self
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn files(&self) -> Files<'_> {
            Files { root: &self.0 }
        }

        fn count(&self, affinity: Option<usize>, environment: Option<&str>) -> CpuCount {
            let files = self.files();
            CpuCount::read(&files, files.physical(), affinity.and_then(NonZeroUsize::new), environment)
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            // What is left behind in the temporary directory hurts nobody.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const V1: &str = "\
        24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        30 24 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n\
        31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct\n";
    const V2: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    fn quota(groups: &str, mounts: &str, files: &[(&str, &str)]) -> Option<f64> {
        let fake = Fake::new(files);
        fake.write("proc/self/cgroup", groups);
        fake.write("proc/self/mountinfo", mounts);
        fake.files().quota()
    }

    /// CPU-04: in both versions the least quota on the way up counts, wherever it is.
    #[test]
    fn the_least_quota_on_the_way_up_counts() {
        let v1_groups = "4:memory:/a\n3:cpuset:/a\n2:cpu,cpuacct:/a/b\n1:name=systemd:/s\n0::/a\n";
        for (depth, directory) in ["", "a/", "a/b/"].into_iter().enumerate() {
            let v2 = |other: &str, least: &str| {
                let mut files: Vec<_> =
                    ["", "a/", "a/b/"].map(|name| (format!("sys/fs/cgroup/{name}cpu.max"), other)).into();
                files[depth].1 = least;
                files.push(("sys/fs/cgroup/a/b/c/cpu.max".into(), "1000 100000\n")); // a group below is another's
                files.push(("sys/fs/cgroup/x/cpu.max".into(), "1000 100000\n")); // and so is one beside
                let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
                quota("0::/a/b\n", V2, &files)
            };
            assert_eq!(v2("max 100000\n", "150000 100000\n"), Some(1.5), "{directory}");
            assert_eq!(v2("300000 100000\n", "50000 100000\n"), Some(0.5), "{directory}");
            assert_eq!(v2("max 100000\n", "max 100000\n"), None, "{directory}");

            let cpu = format!("sys/fs/cgroup/cpu,cpuacct/{directory}cpu.cfs");
            let misplaced = [
                ("sys/fs/cgroup/memory/a/cpu.cfs_quota_us", "1"),
                ("sys/fs/cgroup/memory/a/cpu.cfs_period_us", "9"),
                ("sys/fs/cgroup/cpu,cpuacct/a/cpu.max", "1 9"),
            ];
            let v1 = |value: &str| {
                let (limit, period) = (format!("{cpu}_quota_us"), format!("{cpu}_period_us"));
                quota(v1_groups, V1, &[&misplaced[..], &[(&limit, value), (&period, "50000\n")]].concat())
            };
            assert_eq!(v1("125000\n"), Some(2.5), "{directory}");
            assert_eq!(v1("-1\n"), None, "{directory}");
        }
    }

    /// CPU-04: both versions at once, containers that see their own group as the mount's root, and odd paths.
    #[test]
    fn a_group_is_found_where_it_is_mounted() {
        let own = "31 24 0:27 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n";
        let (limit, period) = ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "sys/fs/cgroup/cpu/cpu.cfs_period_us");
        let files = &[(limit, "200000"), (period, "100000")];
        assert_eq!(quota("2:cpu:/docker/abc\n", own, files), Some(2.0));
        assert_eq!(quota("2:cpu:/docker/abc/gone\n", own, files), Some(2.0), "a group that is not to be seen");
        assert_eq!(quota("2:cpu:/docker/abcdef\n", own, files), None, "another group's directory");
        assert_eq!(quota("2:cpu:/docker/abc/../other\n", own, files), None, "outside of the namespace");

        let both = &[files[0], files[1], ("sys/fs/cgroup/unified/u/cpu.max", "150000 100000")];
        let unified = "38 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(quota("2:cpu:/docker/abc\n0::/u\n", &format!("{own}{unified}"), both), Some(1.5));

        let odd = "30 24 0:26 /a\\040b\\134x2d /odd\\040place rw - cgroup2 cgroup2 rw\n";
        assert_eq!(quota("0::/a b\\x2d/c:d\n", odd, &[("odd place/c:d/cpu.max", "1 2")]), Some(0.5));
    }

    /// CPU-05: what is no quota limits nothing, and is no error.
    #[test]
    fn nonsense_is_no_quota() {
        let absurd = "99999999999999999999999 100000";
        for text in
            ["", "\n", "max", "max 100000", "100000", "0 100000", "100000 0", "-1 100000", "a b", "1 2 3", absurd]
        {
            assert_eq!(quota("0::/job\n", V2, &[("sys/fs/cgroup/job/cpu.max", text)]), None, "{text:?}");
            // What is above still counts.
            let files = &[("sys/fs/cgroup/job/cpu.max", text), ("sys/fs/cgroup/cpu.max", "300000 100000")];
            assert_eq!(quota("0::/job\n", V2, files), Some(3.0), "{text:?}");
        }
        let [limit, period] = ["quota", "period"].map(|file| format!("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_{file}_us"));
        for numbers in [["", "9"], ["9", ""], ["9", "0"], ["0", "9"], ["", "9 9"], ["9 9", "9"], ["a", "b"]] {
            let files = &[(limit.as_str(), numbers[0]), (period.as_str(), numbers[1])];
            assert_eq!(quota("1:cpu:/\n", V1, files), None, "{numbers:?}");
        }
        let file = &[("sys/fs/cgroup/cpu.max", "100000 100000")];
        for (groups, mounts) in
            [("", V2), ("0::/", ""), ("0:", V2), ("\u{fffd}", "- - -"), ("0::/", "1 2 - cgroup2"), ("1:cpu:/", V2)]
        {
            assert_eq!(quota(groups, mounts, file), None, "{groups:?} {mounts:?}");
        }
        assert_eq!(Fake::new(file).files().quota(), None, "no /proc");
    }

    /// CPU-01, CPU-04: the least of machine, affinity and quota, rounded up; and which of them it was.
    #[test]
    fn the_least_limit_decides() {
        let table = [
            // affinity, quota, usable, reason
            (None, "max 100000", 8, Reason::Machine),
            (Some(8), "800000 100000", 8, Reason::Machine),
            (Some(8), "710000 100000", 8, Reason::Machine),
            (Some(64), "6400000 100000", 8, Reason::Machine),
            (Some(3), "max 100000", 3, Reason::Affinity),
            (Some(3), "300000 100000", 3, Reason::Affinity),
            (Some(3), "201000 100000", 3, Reason::Affinity),
            (Some(3), "200000 100000", 2, Reason::Quota),
            (None, "150000 100000", 2, Reason::Quota),
            (None, "50000 100000", 1, Reason::Quota),
            (None, "1 1000000", 1, Reason::Quota),
            (Some(1), "18446744073709551615 1", 1, Reason::Affinity),
        ];
        for (affinity, cpu_max, usable, reason) in table {
            let count = Fake::machine().with_quota(cpu_max).count(affinity, None);
            assert_eq!((count.usable().get(), count.reason()), (usable, reason), "{affinity:?} {cpu_max}");
            assert_eq!((count.logical().get(), count.affinity().map(NonZeroUsize::get)), (8, affinity));
        }
        let reasons = [Reason::Environment, Reason::Affinity, Reason::Quota, Reason::Machine];
        let sentences = [
            "CONCURRENT_FUTURES_CPU_COUNT says so",
            "this process is bound to so many processors",
            "the quota of a control group allows no more",
            "the machine has so many",
        ];
        assert_eq!(reasons.map(|reason| reason.to_string()), sentences);
    }

    /// CPU-02: the environment wins, whether it says less or more.
    #[test]
    fn the_environment_wins() {
        let fake = Fake::machine().with_quota("200000 100000");
        for (text, said) in [("7", 7), ("1", 1), ("64", 64), (" 5\n", 5)] {
            let count = fake.count(Some(4), Some(text));
            assert_eq!((count.usable().get(), count.reason()), (said, Reason::Environment));
            assert_eq!(count.environment(), NonZeroUsize::new(said));
        }
        for ignored in ["", "0", "-1", "1.5", "all", "default", "99999999999999999999999"] {
            let count = fake.count(Some(4), Some(ignored));
            assert_eq!(
                (count.usable().get(), count.reason(), count.environment()),
                (2, Reason::Quota, None),
                "{ignored}"
            );
        }
    }

    /// CPU-03: a core is what several processors share. What is offline does not count.
    #[test]
    fn cores_are_told_from_their_threads() {
        let fake = Fake::machine();
        let cpus = fake.count(None, None);
        assert_eq!((cpus.logical().get(), cpus.physical().map(NonZeroUsize::get)), (8, Some(4)));

        fake.write("sys/devices/system/cpu/online", "0,2,4-6\n");
        let cpus = fake.count(None, None);
        assert_eq!((cpus.logical().get(), cpus.physical().map(NonZeroUsize::get)), (5, Some(3)));

        let topology = "sys/devices/system/cpu/cpu0/topology";
        let old =
            Fake::new(&[("sys/devices/system/cpu/online", "0"), (&format!("{topology}/thread_siblings_list"), "0")]);
        assert_eq!(old.files().physical(), NonZeroUsize::new(1), "a kernel that has only the older name");
    }

    /// CPU-06: cores are a choice only where nothing restricts this process.
    #[test]
    fn physical_cores_are_ignored_under_a_restriction() {
        let (free, limited) = ("max 100000", "600000 100000");
        let table = [
            // affinity, quota, environment, usable cores
            (None, free, None, 4),
            (Some(8), free, Some("8"), 4),
            (Some(7), free, None, 7),
            (Some(1), free, None, 1),
            (None, limited, None, 6),
            (None, free, Some("5"), 5),
            (None, free, Some("64"), 64),
        ];
        for (affinity, cpu_max, environment, cores) in table {
            let count = Fake::machine().with_quota(cpu_max).count(affinity, environment);
            assert_eq!(count.usable_physical().get(), cores, "{affinity:?} {cpu_max} {environment:?}");
        }
    }

    /// CPU-07: where nobody knows of cores, processors count; where nobody knows of those, affinity does.
    #[test]
    fn unknown_cores_fall_back_to_processors() {
        let fake = Fake::machine();
        fs::remove_dir_all(fake.0.join("sys/devices/system/cpu/cpu5")).unwrap();
        let cpus = fake.count(None, None);
        assert_eq!((cpus.physical(), cpus.usable_physical().get()), (None, 8));

        for nonsense in ["", "\n", "a", "0-", "-1", "3-1", "0-3,", "0-99999999999"] {
            fake.write("sys/devices/system/cpu/online", nonsense);
            let cpus = fake.count(Some(3), None);
            assert_eq!(
                (cpus.logical().get(), cpus.physical(), cpus.usable_physical().get()),
                (3, None, 3),
                "{nonsense:?}"
            );
        }
        let nothing = Fake::new(&[]).count(None, None);
        assert!(nothing.usable().get() >= 1 && nothing.quota().is_none() && nothing.physical().is_none());
    }

    /// CPU-01, CPU-08: affinity and quota are read anew each time. The affinity is this thread's, and a new thread's.
    #[cfg(target_os = "linux")]
    #[test]
    fn affinity_and_quota_are_read_anew() {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

        thread::spawn(|| {
            let all = sched_getaffinity(None).unwrap();
            let before = CpuCount::detect();
            assert_eq!(before.affinity(), NonZeroUsize::new(all.count() as usize));
            let mut one = CpuSet::new();
            one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
            sched_setaffinity(None, &one).unwrap();
            let after = CpuCount::detect();
            assert_eq!(after.affinity(), Some(NonZeroUsize::MIN));
            assert_eq!(thread::spawn(affinity).join().unwrap(), Some(NonZeroUsize::MIN));
            assert_eq!((after.logical(), after.physical()), (before.logical(), before.physical()));
        })
        .join()
        .unwrap();

        let fake = Fake::machine().with_quota("max 100000");
        assert_eq!(fake.count(None, None).usable().get(), 8);
        fake.write("sys/fs/cgroup/job/cpu.max", "250000 100000");
        assert_eq!(fake.count(None, None).usable().get(), 3);
    }

    /// CPU-09: joblib's count of jobs.
    #[test]
    fn n_jobs_means_what_joblib_means() {
        let of_four = |n_jobs| jobs(n_jobs, NonZeroUsize::new(4).unwrap()).map(NonZeroUsize::get);
        let table = [(1, 1), (3, 3), (64, 64), (-1, 4), (-2, 3), (-4, 1), (-5, 1), (-100, 1), (i64::MIN, 1)];
        for (n_jobs, workers) in table {
            assert_eq!(of_four(n_jobs), Ok(workers), "{n_jobs}");
        }
        assert_eq!(of_four(0), Err(BuildError::Jobs));
        assert_eq!(
            BuildError::Jobs.to_string(),
            "n_jobs is 0, and must be a number of workers, or -1 for all processors, -2 for all but one"
        );
        assert_eq!(effective_n_jobs(-1), Ok(cpu_count()));
    }
}
