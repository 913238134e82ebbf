//! The life of a worker process: which event may follow which, and what is then to be done. Pure: no process is
//! touched here, and no clock is read.
//!
//! ```text
//!  Starting ──ready──► Idle ──dispatch──► Busy        Busy ──drained──► Idle
//!     │                 │ │                 │
//!     │               close └──── kill ─────┤ kill
//!     │                 ▼                   ▼
//!     │              Closing ── kill ─► Terminating    a signal that can be handled, then a grace
//!     │                 │                   │
//!     └─ unfit, kill,   │ deadline          │ deadline       (Idle, Busy: unfit ──► Killing)
//!        close, deadline│                   │
//!              └────────┴─► Killing ◄───────┘          a signal that cannot
//!
//!  any of them ──exited──► Dead
//! ```
//!
//! - `ready`: it has proved to be the same build of the same program, and its initializer has returned.
//! - `dispatch`, `drained`: its channel holds calls; the last of them is answered.
//! - `deadline`: the time that the state allows has passed. `Idle` and `Busy` allow any time.
//! - What becomes of the calls that a dead worker held is not decided here, but from its claims: see `driver/workers.rs`.

use std::time::Duration;

/// Between the signal that a worker may handle and the one that it cannot, unless another time is chosen.
pub(crate) const KILL_GRACE: Duration = Duration::from_millis(100);

/// Where a worker process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Starting,
    Idle,
    Busy,
    Closing,
    Terminating,
    Killing,
    Dead,
}

/// What can happen to a worker process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    Ready,
    Unfit,
    Dispatch,
    Drained,
    Close,
    Kill,
    Deadline,
    Exited,
}

/// What the driver now owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a transition is only done with its action"]
pub(crate) enum Action {
    /// Nothing.
    Nothing,
    /// End its input: it leaves when it has read that.
    EndInput,
    /// Ask it to end, by a signal that it may handle.
    Terminate,
    /// End it, by a signal that it cannot handle.
    Kill,
    /// See what becomes of the calls that it held, and whether it is replaced.
    Bury,
}

impl State {
    /// The state after `event`, and what to do. An event that means nothing in a state changes nothing: replies
    /// may still arrive from a worker that is being killed.
    pub(crate) fn after(self, event: Event) -> (State, Action) {
        use {Action as A, Event as E, State as S};
        match (self, event) {
            (S::Dead, _) => (S::Dead, A::Nothing),
            (_, E::Exited) => (S::Dead, A::Bury),

            (S::Starting, E::Ready) => (S::Idle, A::Nothing),
            (S::Starting, E::Unfit | E::Close | E::Kill | E::Deadline) => (S::Killing, A::Kill),

            (S::Idle, E::Dispatch) => (S::Busy, A::Nothing),
            (S::Busy, E::Drained) => (S::Idle, A::Nothing),
            (S::Idle, E::Close) => (S::Closing, A::EndInput),
            (S::Idle | S::Busy, E::Unfit) => (S::Killing, A::Kill),
            (S::Idle | S::Busy | S::Closing, E::Kill) => (S::Terminating, A::Terminate),

            (S::Closing | S::Terminating, E::Deadline) => (S::Killing, A::Kill),

            (state, _) => (state, A::Nothing),
        }
    }

    /// How long a worker may stay in the state.
    pub(crate) fn limit(self) -> Option<Duration> {
        match self {
            State::Starting => Some(Duration::from_secs(60)),
            State::Closing => Some(Duration::from_secs(5)),
            State::Terminating => Some(KILL_GRACE),
            State::Idle | State::Busy | State::Killing | State::Dead => None,
        }
    }

    /// Whether calls may be put into its channel.
    pub(crate) fn accepts_calls(self) -> bool {
        matches!(self, State::Idle | State::Busy)
    }
}

/// How many workers may end, one after the other, before they began a call.
const FRUITLESS_STARTS: u32 = 3;

/// Counts workers that ended for no call's sake, so that a program whose workers cannot live does not start them for
/// ever.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    fruitless: u32,
}

impl Restarts {
    /// A worker answered a call.
    pub(crate) fn served(&mut self) {
        self.fruitless = 0;
    }

    /// A worker ended before it had begun a call. Returns whether another may be tried.
    #[must_use]
    pub(crate) fn ended_without_a_call(&mut self) -> bool {
        self.fruitless += 1;
        self.fruitless < FRUITLESS_STARTS
    }
}

#[cfg(test)]
mod tests {
    use super::{Action as A, Event as E, State as S, *};

    const STATES: [S; 7] = [S::Starting, S::Idle, S::Busy, S::Closing, S::Terminating, S::Killing, S::Dead];
    const EVENTS: [E; 8] = [E::Ready, E::Unfit, E::Dispatch, E::Drained, E::Close, E::Kill, E::Deadline, E::Exited];

    #[test]
    fn every_state_meets_every_event() {
        let stays = |state| (state, A::Nothing);
        let table = [
            (
                S::Starting,
                [
                    (S::Idle, A::Nothing),
                    (S::Killing, A::Kill),
                    stays(S::Starting),
                    stays(S::Starting),
                    (S::Killing, A::Kill),
                    (S::Killing, A::Kill),
                    (S::Killing, A::Kill),
                    (S::Dead, A::Bury),
                ],
            ),
            (
                S::Idle,
                [
                    stays(S::Idle),
                    (S::Killing, A::Kill),
                    (S::Busy, A::Nothing),
                    stays(S::Idle),
                    (S::Closing, A::EndInput),
                    (S::Terminating, A::Terminate),
                    stays(S::Idle),
                    (S::Dead, A::Bury),
                ],
            ),
            (
                S::Busy,
                [
                    stays(S::Busy),
                    (S::Killing, A::Kill),
                    stays(S::Busy),
                    (S::Idle, A::Nothing),
                    stays(S::Busy),
                    (S::Terminating, A::Terminate),
                    stays(S::Busy),
                    (S::Dead, A::Bury),
                ],
            ),
            (
                S::Closing,
                [
                    stays(S::Closing),
                    stays(S::Closing),
                    stays(S::Closing),
                    stays(S::Closing),
                    stays(S::Closing),
                    (S::Terminating, A::Terminate),
                    (S::Killing, A::Kill),
                    (S::Dead, A::Bury),
                ],
            ),
            (
                S::Terminating,
                [
                    stays(S::Terminating),
                    stays(S::Terminating),
                    stays(S::Terminating),
                    stays(S::Terminating),
                    stays(S::Terminating),
                    stays(S::Terminating),
                    (S::Killing, A::Kill),
                    (S::Dead, A::Bury),
                ],
            ),
            (
                S::Killing,
                [
                    stays(S::Killing),
                    stays(S::Killing),
                    stays(S::Killing),
                    stays(S::Killing),
                    stays(S::Killing),
                    stays(S::Killing),
                    stays(S::Killing),
                    (S::Dead, A::Bury),
                ],
            ),
            (S::Dead, [stays(S::Dead); 8]),
        ];
        assert_eq!(table.map(|(state, _)| state), STATES, "a row for each state");
        for (state, row) in table {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                assert_eq!(state.after(event), expected, "{state:?} × {event:?}");
            }
        }
    }

    /// A worker that never answers anything is dead soon, from wherever it is asked to go.
    #[test]
    fn a_silent_worker_cannot_outlive_its_deadlines() {
        for state in STATES.into_iter().filter(|state| *state != S::Dead) {
            for ask in [E::Close, E::Kill, E::Unfit] {
                let (mut state, mut action) = state.after(ask);
                while state.limit().is_some() && action != A::Kill {
                    (state, action) = state.after(E::Deadline);
                }
                let killed = action == A::Kill || state == S::Killing;
                assert!(killed || state.accepts_calls(), "{state:?} after {ask:?}");
            }
        }
    }

    /// INI-06: workers that cannot start are not started for ever.
    #[test]
    fn fruitless_starts_are_counted_and_a_good_one_clears_them() {
        let mut restarts = Restarts::default();
        assert!(restarts.ended_without_a_call());
        assert!(restarts.ended_without_a_call());
        restarts.served();
        assert!(restarts.ended_without_a_call());
        assert!(restarts.ended_without_a_call());
        assert!(!restarts.ended_without_a_call());
    }
}
