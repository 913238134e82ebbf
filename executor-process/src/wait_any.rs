//! Waiting for the first of several things of the operating system's.

use executor_core::{blocking, timer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

/// Waits until at least one of `objects` is ready, or `limit` is over, and returns the places of those that are, in their order:
/// a process that has ended, a connection with something to receive, or whose other end is gone, a socket to read from.
/// Python's `multiprocessing.connection.wait`.
///
/// None are ready when the limit is over; a limit of zero only looks. `None` waits for ever.
///
/// # Errors
/// What the system says, such as that there are too many.
///
/// # Examples
/// ```
/// use concurrent_futures::{Process, wait_any};
/// use std::time::Duration;
///
/// let slow = Process::new(std::thread::sleep, Duration::from_secs(60)).daemon(true).start()?;
/// let quick = Process::new(|()| (), ()).start()?;
/// assert_eq!(wait_any(&[&slow, &quick], None)?, [1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait_any<T: AsFd>(objects: &[T], limit: Option<Duration>) -> io::Result<Vec<usize>> {
    let descriptors: Vec<_> = objects.iter().map(AsFd::as_fd).collect();
    blocking::while_blocked(|| wait_until_ready(&descriptors, limit.map(timer::after)))
}

/// Which of these can be read from, or have ended; none when the deadline is over.
pub(crate) fn wait_until_ready(descriptors: &[BorrowedFd<'_>], deadline: Option<Instant>) -> io::Result<Vec<usize>> {
    let mut polled: Vec<_> = descriptors.iter().map(|descriptor| PollFd::new(descriptor, PollFlags::IN)).collect();
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut polled, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => break,
        }
    }
    let ready = polled.iter().enumerate().filter(|(_, polled)| !polled.revents().is_empty());
    Ok(ready.map(|(place, _)| place).collect())
}
