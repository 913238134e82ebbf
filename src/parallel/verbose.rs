//! Progress in lines, as joblib prints them: which of them, and what they say.

use std::{
    fmt::Arguments,
    io::{self, Write},
    time::{Duration, Instant},
};

/// From here on every completion has its line.
const EACH: u32 = 10;

/// From here on lines go to standard output.
const TO_STDOUT: u32 = 50;

/// Tells of one parallel call.
#[derive(Debug)]
pub(super) struct Report {
    verbose: u32,
    /// As it was chosen.
    n_jobs: i64,
    began: Instant,
}

/// How far a parallel call is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) done: usize,
    /// Taken from the input so far.
    pub(super) taken: usize,
    /// Nothing more is to come from the input.
    pub(super) is_all_taken: bool,
    /// How many the input said that it has.
    pub(super) total: Option<usize>,
    /// Batches that came to an end.
    pub(super) batches: usize,
}

impl Report {
    pub(super) fn new(verbose: u32, n_jobs: i64) -> Self {
        Report { verbose, n_jobs, began: Instant::now() }
    }

    pub(super) fn say(&self, what: Arguments<'_>) {
        if self.verbose == 0 {
            return;
        }
        let line = format!("[Parallel(n_jobs={})]: {what}\n", self.n_jobs);
        // Who reads it may be gone, which is no reason to stop.
        let _ = match self.verbose >= TO_STDOUT {
            true => io::stdout().write_all(line.as_bytes()),
            false => io::stderr().write_all(line.as_bytes()),
        };
    }

    pub(super) fn progress(&self, progress: Progress) {
        if let Some(line) = self.line(progress, self.began.elapsed()) {
            self.say(format_args!("{line}"));
        }
    }

    /// What is to be said at this point, if anything.
    fn line(&self, progress: Progress, elapsed: Duration) -> Option<String> {
        let Progress { done, taken, is_all_taken, total, batches } = progress;
        if self.verbose == 0 || done == 0 {
            return None;
        }
        let width = total.map_or(3, |total| total.to_string().len());
        let time = short(elapsed);
        if is_all_taken && done == taken {
            return Some(format!("Done {done:width$} out of {done:width$} | elapsed: {time} finished"));
        }
        if is_all_taken {
            // As many lines as `verbose` says, spread over what there is, and one before the last.
            let frequency = taken / self.verbose as usize + 1;
            let left = taken - done;
            if left != 1 && !left.is_multiple_of(frequency) {
                return None;
            }
            let remaining = short(elapsed.mul_f64(left as f64 / done as f64));
            return Some(format!("Done {done:width$} out of {taken:width$} | elapsed: {time} remaining: {remaining}"));
        }
        if !is_due(batches, self.verbose) {
            return None;
        }
        match total {
            Some(total) => Some(format!("Done {done:width$} out of {total:width$} | elapsed: {time}")),
            None => Some(format!("Done {done:width$} tasks{:width$}   | elapsed: {time}", "")),
        }
    }
}

/// Further and further apart, the nearer together the more is asked for: lines at the squares, in units that shrink.
fn is_due(batches: usize, verbose: u32) -> bool {
    if verbose > EACH {
        return true;
    }
    let unit = 0.5 * f64::from(EACH + 1 - verbose).powi(2);
    let step = |batches: usize| (batches as f64 / unit).sqrt().floor();
    batches == 1 || step(batches - 1) != step(batches)
}

/// In seconds, or from a minute on in minutes, always as wide.
fn short(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds > 60.0 { format!("{:4.1}min", seconds / 60.0) } else { format!(" {seconds:5.1}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(verbose: u32, calls: usize, ahead: usize, total: Option<usize>) -> Vec<String> {
        let report = Report::new(verbose, 2);
        let at = |done: usize| Progress {
            done,
            taken: calls.min(done + ahead),
            is_all_taken: done + ahead > calls,
            total,
            batches: done,
        };
        // A fake clock: a second for each call.
        (1..=calls).filter_map(|done| report.line(at(done), Duration::from_secs(done as u64))).collect()
    }

    /// JOB-30: lines for people who know joblib's.
    #[test]
    fn lines_are_as_joblib_prints_them() {
        assert_eq!(
            lines(11, 6, 3, None),
            [
                "Done   1 tasks      | elapsed:    1.0s",
                "Done   2 tasks      | elapsed:    2.0s",
                "Done   3 tasks      | elapsed:    3.0s",
                "Done   4 out of   6 | elapsed:    4.0s remaining:    2.0s",
                "Done   5 out of   6 | elapsed:    5.0s remaining:    1.0s",
                "Done   6 out of   6 | elapsed:    6.0s finished",
            ]
        );
        let known = lines(11, 100, 4, Some(100));
        assert_eq!(known[8], "Done   9 out of 100 | elapsed:    9.0s");
        assert_eq!(known.last().unwrap(), "Done 100 out of 100 | elapsed:  1.7min finished");
    }

    /// JOB-30: nothing at 0; more lines the more is asked for; each completion above 10.
    #[test]
    fn more_verbose_is_more_lines() {
        let counts: Vec<_> = [0, 1, 5, 10, 11, 50].map(|verbose| lines(verbose, 1000, 4, None).len()).into();
        assert_eq!(counts[0], 0);
        assert!(counts.is_sorted(), "{counts:?}");
        assert!(counts[1] > 2 && counts[1] < 20, "{counts:?}");
        assert!(counts[4] >= 996, "{counts:?}");
    }
}
