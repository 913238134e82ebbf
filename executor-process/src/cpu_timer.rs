//! How a worker process is ended when a call has used up its processor time.
//!
//! Two of the kernel's timers run on the process's own processor time, and are set anew as each call begins: the first sends
//! SIGXCPU, which ends the process and tells the parent why; the second, a while later, SIGKILL, for code that handles
//! the first. `RLIMIT_CPU` is no substitute: it counts the whole life of a process, in whole seconds, by another clock than any
//! that can be read, and what it has lowered once it cannot raise again.

#![expect(unsafe_code, reason = "the kernel's timers have no other interface than C's")]

use std::{io, mem, ptr, time::Duration};

/// What code that handles the first signal has left.
const LAST: Duration = Duration::from_secs(1);

/// Ends this process when it has used so much processor time since the last start.
pub(crate) struct CpuTimer {
    allowance: Duration,
    first: libc::timer_t,
    last: libc::timer_t,
}

impl CpuTimer {
    /// Stands still.
    pub(crate) fn new(allowance: Duration) -> io::Result<CpuTimer> {
        Ok(CpuTimer { allowance, first: create(libc::SIGXCPU)?, last: create(libc::SIGKILL)? })
    }

    /// Gives this process so much processor time from now on.
    pub(crate) fn start(&self) {
        set(self.first, self.allowance);
        set(self.last, self.allowance.saturating_add(LAST));
    }

    /// Lets it have what it likes.
    pub(crate) fn stop(&self) {
        set(self.first, Duration::ZERO);
        set(self.last, Duration::ZERO);
    }
}

impl Drop for CpuTimer {
    fn drop(&mut self) {
        for timer in [self.first, self.last] {
            // SAFETY: made by `create` and not deleted since: nobody else has it.
            unsafe { libc::timer_delete(timer) };
        }
    }
}

/// A timer that sends `signal` to this process.
fn create(signal: libc::c_int) -> io::Result<libc::timer_t> {
    // SAFETY: numbers and a pointer that nobody follows, for all of which zero is a value.
    let mut event: libc::sigevent = unsafe { mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = signal;
    let mut timer = ptr::null_mut();
    // SAFETY: both pointers are to values of ours that live through the call, which reads the one and writes the other.
    let result = unsafe { libc::timer_create(libc::CLOCK_PROCESS_CPUTIME_ID, &mut event, &mut timer) };
    if result == 0 { Ok(timer) } else { Err(io::Error::last_os_error()) }
}

/// Has a timer send its signal once, after so much more processor time; after none, never.
fn set(timer: libc::timer_t, time: Duration) {
    // SAFETY: numbers, for all of which zero is a value; some systems have more of them than are named here.
    let mut after: libc::itimerspec = unsafe { mem::zeroed() };
    after.it_value.tv_sec = time.as_secs().try_into().unwrap_or(libc::time_t::MAX);
    after.it_value.tv_nsec = time.subsec_nanos().into();
    // SAFETY: the timer was made by `create` and is not deleted before its owner is dropped; the times are a value of ours,
    // which is read; what it was set to before is not asked for.
    let _ = unsafe { libc::timer_settime(timer, 0, &after, ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        env,
        os::unix::process::ExitStatusExt,
        process::{self, Command},
    };

    const HOW: &str = "CPU_TIMER_TEST";

    /// This very test in a process of its own, which it ends.
    fn ends_by(test: &str, how: &str) -> Option<i32> {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", &format!("cpu_timer::tests::{test}")]).env(HOW, how);
        command.output().unwrap().status.signal()
    }

    #[test]
    fn a_process_is_ended_when_its_time_is_used() {
        if let Some(how) = env::var_os(HOW) {
            // SAFETY: sets dispositions of the system's; no handler of ours is involved.
            unsafe { libc::signal(libc::SIGXCPU, if how == "deaf" { libc::SIG_IGN } else { libc::SIG_DFL }) };
            let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
            rustix::process::setrlimit(rustix::process::Resource::Core, none).unwrap();
            let timer = CpuTimer::new(Duration::from_millis(20)).unwrap();
            timer.start();
            if how == "stopped" {
                timer.stop();
            }
            let used = || rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).tv_nsec;
            let began = used();
            while how != "stopped" || (began..began + 60_000_000).contains(&used()) {
                std::hint::spin_loop();
            }
            process::exit(0);
        }
        let test = "a_process_is_ended_when_its_time_is_used";
        assert_eq!(ends_by(test, "default"), Some(libc::SIGXCPU));
        assert_eq!(ends_by(test, "deaf"), Some(libc::SIGKILL));
        assert_eq!(ends_by(test, "stopped"), None);
    }

    #[test]
    fn a_limit_may_be_as_long_as_anything() {
        let timer = CpuTimer::new(Duration::MAX).unwrap();
        timer.start();
        timer.stop();
    }
}
