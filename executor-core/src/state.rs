//! The life of a task: which event may follow which. Nothing here locks, waits or does I/O.
//!
//! ```text
//!              ┌───────────── recall ─────────────┐
//!              ▼                                  │
//!           Pending ────────── dispatch ──────► Dispatched        (only where a channel lies between)
//!            │ │ │                               │ │ │
//!            │ │ └─ start ──► Running ◄── start ─┘ │ │
//!            │ │                │                  │ │
//!            │ └─── settle ──► Done ◄── settle ────┘ │
//!            │                                       │
//!            └──── cancel ──► Cancelled ◄── cancel ──┘
//!
//!           Pending ◄── retry ── Dispatched, Running
//! ```
//!
//! - `settle` gives the outcome: the call returned, panicked, was lost with its worker, could not be
//!   encoded, or its backend let go of it.
//! - `Done` and `Cancelled` are entered once. Nothing leaves them, so a late result never
//!   overwrites an earlier outcome.
//! - `recall` takes a task back from a channel whose worker died before it began.
//! - `retry` follows an attempt that failed, where another one is wanted.

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Accepted, and still in this process's queue.
    Pending,
    /// In a worker's channel, not begun as far as is known.
    Dispatched,
    /// Begun: it can no longer be cancelled.
    Running,
    /// It has an outcome: a value or an error.
    Done,
    /// Cancelled before it began.
    Cancelled,
}

/// What can happen to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A backend put it into a worker's channel.
    Dispatch,
    /// A backend took it back from a channel.
    Recall,
    /// The call begins, or is learned to have begun elsewhere.
    Start,
    /// Somebody asks for it not to begin.
    Cancel,
    /// Its outcome is known.
    Settle,
    /// An attempt failed, and another one is to follow.
    Retry,
}

impl State {
    /// The state after `event`, or `None` when the event is refused and nothing changes.
    #[must_use]
    pub fn after(self, event: Event) -> Option<State> {
        use {Event as E, State as S};
        match (self, event) {
            (S::Pending, E::Dispatch) => Some(S::Dispatched),
            (S::Dispatched, E::Recall) | (S::Dispatched | S::Running, E::Retry) => Some(S::Pending),
            (S::Pending | S::Dispatched, E::Start) => Some(S::Running),
            (S::Pending | S::Dispatched, E::Cancel) => Some(S::Cancelled),
            (S::Pending | S::Dispatched | S::Running, E::Settle) => Some(S::Done),
            (S::Dispatched | S::Running, E::Dispatch)
            | (S::Pending | S::Running, E::Recall)
            | (S::Pending, E::Retry)
            | (S::Running, E::Start | E::Cancel)
            | (S::Done | S::Cancelled, _) => None,
        }
    }

    /// Whether nothing can follow.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, State::Done | State::Cancelled)
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Event::*, State, State::*};

    const STATES: [State; 5] = [Pending, Dispatched, Running, Done, Cancelled];
    const EVENTS: [Event; 6] = [Dispatch, Recall, Start, Cancel, Settle, Retry];

    /// Every state × event. FUT-02, FUT-04, FUT-05, FUT-06, CAN-02, CAN-03.
    #[test]
    fn every_state_meets_every_event() {
        let table = [
            (Pending, [Some(Dispatched), None, Some(Running), Some(Cancelled), Some(Done), None]),
            (Dispatched, [None, Some(Pending), Some(Running), Some(Cancelled), Some(Done), Some(Pending)]),
            (Running, [None, None, None, None, Some(Done), Some(Pending)]),
            (Done, [None; 6]),
            (Cancelled, [None; 6]),
        ];
        assert_eq!(table.map(|(state, _)| state), STATES, "a row for each state");
        for (state, row) in table {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                assert_eq!(state.after(event), expected, "{state:?} × {event:?}");
            }
        }
    }

    #[test]
    fn final_states_are_those_that_refuse_everything() {
        for state in STATES {
            let refuses_all = EVENTS.into_iter().all(|event| state.after(event).is_none());
            assert_eq!(state.is_final(), refuses_all, "{state:?}");
        }
    }
}
