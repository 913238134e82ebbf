//! What is told of a worker and its calls to those who observe, and to those who ask.

use executor_core::{Exit, RunningTask, WorkerEnd, task::Parcel};

use crate::{
    claims::Claim,
    lane::{Doom, Lane},
};

impl Lane {
    /// The call that the worker makes now.
    pub(crate) fn running(&self) -> Option<RunningTask> {
        let claims = &self.channel.claims;
        let ticket = claims.current()?;
        // One that it has just answered is no more among them.
        let parcel = self.in_flight.iter().find(|call| call.ticket == ticket)?.parcel.as_ref()?;
        let age = claims.runs_for(ticket)?;
        let running = RunningTask::new(parcel.id(), parcel.submitted_at(), self.name.to_string(), age);
        Some(running.in_process(self.child.id()))
    }

    /// Tells of calls that have begun. Returns whether others may begin, of which nobody is told yet.
    pub(crate) fn look_for_starts(&self) -> bool {
        for call in &self.in_flight {
            let Some(parcel) = &call.parcel else { continue };
            match self.channel.claims.get(call.ticket) {
                Claim::Begun => self.tell_begun(parcel, call.ticket),
                Claim::Revoked => {}
                Claim::Offered => return true, // so have not those behind it
            }
        }
        false
    }

    /// A call has begun, as its claim says.
    pub(crate) fn tell_begun(&self, parcel: &Parcel, ticket: u64) {
        if let Some(worker) = self.observed.as_ref().filter(|_| parcel.begins_unobserved()) {
            parcel.ran(worker, self.channel.claims.begun_at(ticket), None);
        }
    }

    /// A call was answered.
    pub(crate) fn tell_made(&self, parcel: &Parcel, ticket: u64) {
        if let Some(worker) = &self.observed {
            let claims = &self.channel.claims;
            let ended = claims.ended_at(ticket);
            parcel.ran(worker, claims.begun_at(ticket).min(ended), Some(ended));
        }
    }

    /// How the worker ended, whose process did thus.
    pub(crate) fn end(&self, exit: &Exit) -> WorkerEnd {
        let is_at_peace = self.leaves && *exit == Exit::Code(0);
        match self.doom {
            Some(Doom::Kill(_) | Doom::Overrun(..)) => WorkerEnd::Stopped,
            Some(Doom::Shutdown) => WorkerEnd::Left,
            None if is_at_peace && self.was_used_up() => WorkerEnd::Recycled,
            None if is_at_peace || self.dismissed => WorkerEnd::Left,
            None => WorkerEnd::Died { how: exit.to_string() },
        }
    }
}
