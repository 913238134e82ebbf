//! Who gets a call: a worker whose channel is empty, the first such one; otherwise the one with the shortest channel, up to a few, so
//! that a worker never waits for its next call. A worker that runs out while another's channel still holds calls that have not
//! begun is given half of those, the oldest, so that calls begin in the order of their submission as far as possible.
//! While calls of different priorities wait, no channel holds more than the call that runs: what is in a channel can no
//! longer be overtaken.

use executor_core::{Priority, task::Parcel};
use std::{mem, time::Instant};

use super::{Driver, STARTS_PERIOD, Starts};
use crate::{
    claims::SLOTS,
    lane::{DEPTH, Lane, Outbox},
    supervisor::Event,
};

impl Driver {
    /// Calls that were put behind one that takes long are given to whoever has time. All that have not begun are given out anew,
    /// in their order, so that none begins before one that was submitted earlier and has waited for longer.
    pub(super) fn free_held_up(&mut self) {
        if self.lanes.iter_mut().fold(false, |any, lane| any | lane.holds_up_others()) {
            self.take_all_back();
        }
    }

    /// Takes back to the queue all calls that have not begun, in the order of their submission.
    pub(super) fn take_all_back(&mut self) {
        let mut taken: Vec<_> = self.lanes.iter_mut().flat_map(|lane| lane.take_back(usize::MAX)).collect();
        taken.sort_by_key(Parcel::id);
        self.requeue(taken);
    }

    /// Puts calls that have not begun back to the front of the queue.
    pub(super) fn requeue(&mut self, calls: Vec<Parcel>) {
        let calls: Vec<_> = calls.into_iter().filter(Parcel::recall).collect();
        let mut inbox = self.shared.inbox();
        for parcel in calls.into_iter().rev() {
            inbox.queue.push_front(parcel.priority(), parcel);
        }
    }

    /// Gives queued tasks to workers, and starts workers as long as there are more tasks than workers.
    pub(super) fn assign(&mut self, starts: Starts) {
        self.shrink();
        let has_levels = {
            let queue = &self.shared.inbox().queue;
            queue.has(Priority::High) || queue.has(Priority::Low)
        };
        if has_levels && !self.has_levels {
            self.take_all_back(); // what was put there before may be overtaken now
        }
        self.has_levels = has_levels;
        self.start_wanted(starts);
        // What is written in one call must not be taken for another's.
        let one_by_one = has_levels || self.shared.chosen.output.is_attributed();
        let depth = |lane: &Lane| if one_by_one { 1 } else { lane.depth() };
        // Not one by one, as each reply makes room for one: whoever is woken for it is to have more to do.
        if !self.lanes.iter().any(|lane| lane.takes_calls(depth(lane) / 2 + 1)) {
            return;
        }
        let room: usize = self.lanes.iter().map(|lane| depth(lane).saturating_sub(lane.live)).sum();
        let mut batch = mem::take(&mut self.batch);
        let queued = {
            let queue = &mut self.shared.inbox().queue;
            let queued = queue.len();
            if !has_levels {
                batch.extend((0..room.min(queued)).map_while(|_| queue.pop()));
            }
            queued
        };
        let mut places = self.places();
        // More than there is room for, since some may have been cancelled. With levels one at a time, in the order of their turns.
        for _ in 0..queued {
            let (mut least, mut quickest) = (None, None);
            let takes_one = |lane: &Lane| lane.takes_calls(depth(lane)) && (places > 0 || lane.live > 0);
            for (index, lane) in self.lanes.iter().enumerate().filter(|(_, lane)| takes_one(lane)) {
                if least.is_none_or(|(live, _)| lane.live < live) {
                    least = Some((lane.live, index));
                }
                let delay = lane.delay();
                if quickest.is_none_or(|(least, _)| delay < least) {
                    quickest = Some((delay, index));
                }
            }
            let Some(((least_live, least), (_, quickest))) = least.zip(quickest) else { break };
            // Now and then, calls are spread evenly: one of them may take longer than those before.
            let lane = if starts == Starts::Workers { least } else { quickest };
            self.holds_back |= self.lanes[lane].live > least_live;
            let Some(parcel) = batch.pop_front().or_else(|| self.shared.inbox().queue.pop()) else { break };
            let was_free = self.lanes[lane].live == 0;
            self.dispatch(lane, parcel);
            places -= usize::from(was_free && self.lanes[lane].live > 0);
        }
        if !batch.is_empty() {
            let mut inbox = self.shared.inbox();
            batch.drain(..).rev().for_each(|parcel| inbox.queue.push_front(parcel.priority(), parcel));
        }
        self.batch = batch;
    }

    /// How many more workers may be given calls. Successors of those that leave make a pool's processes more than its workers.
    fn places(&self) -> usize {
        let max_workers = self.shared.chosen.max_workers().get();
        if self.lanes.len() <= max_workers {
            return max_workers; // enough for all
        }
        max_workers.saturating_sub(self.lanes.iter().filter(|lane| lane.live > 0).count())
    }

    fn dispatch(&mut self, lane: usize, parcel: Parcel) {
        let due = parcel.time_limit().and_then(|limit| Instant::now().checked_add(limit));
        if self.lanes[lane].send_call(parcel) {
            self.looks_for_starts = self.shared.chosen.observers.is_some();
            let starts = self.looks_for_starts.then(|| Instant::now() + STARTS_PERIOD);
            self.due_at(due.into_iter().chain(starts).min());
            self.on(lane, Event::Dispatch);
        } // else it is cancelled
    }

    /// Calls in all channels.
    pub(super) fn calls(&self) -> usize {
        self.lanes.iter().map(|lane| lane.live).sum()
    }

    /// Lets idle workers take over calls that wait behind others.
    pub(super) fn rebalance(&mut self, starts: Starts) {
        while let Some(idle) = (0..self.lanes.len()).find(|lane| self.lanes[*lane].is_idle()) {
            if self.places() == 0 {
                return;
            }
            let delay = self.lanes[idle].delay();
            let left = self.lanes[idle].max_tasks - self.lanes[idle].given;
            let room = usize::try_from(left).unwrap_or(usize::MAX);
            let longest = (0..self.lanes.len()).max_by_key(|lane| self.lanes[*lane].live);
            let Some(longest) = longest.filter(|lane| self.lanes[*lane].live > 1) else { return };
            if starts == Starts::Nothing && self.lanes[longest].delay() < delay {
                self.holds_back = true;
                return;
            }
            // Few are dealt out in turns, for the oldest are to begin first: any of them may take long. Of many, which
            // are short, half are moved.
            let are_few = self.lanes[longest].live <= DEPTH;
            let count = if are_few { usize::MAX } else { room.min(self.lanes[longest].live / 2) };
            let taken = self.lanes[longest].take_back(count);
            if taken.is_empty() {
                return; // they have begun meanwhile
            }
            let mut turns = [idle, longest].into_iter().cycle();
            let mut left = Vec::new();
            for parcel in taken.into_iter().filter(Parcel::recall) {
                let turn = if are_few { turns.next().unwrap_or(idle) } else { idle };
                let lane = [turn, idle, longest].into_iter().find(|lane| self.lanes[*lane].takes_calls(SLOTS));
                match lane {
                    Some(lane) => self.dispatch(lane, parcel),
                    None => left.push(parcel),
                }
            }
            let mut inbox = self.shared.inbox();
            left.into_iter().rev().for_each(|parcel| inbox.queue.push_front(parcel.priority(), parcel));
        }
    }

    /// Sends what there is room for. Returns whether anything was sent.
    pub(super) fn flush(&mut self) -> bool {
        (0..self.lanes.len()).fold(false, |any, lane| any | self.flush_lane(lane))
    }

    pub(super) fn flush_lane(&mut self, lane: usize) -> bool {
        let this = &mut self.lanes[lane];
        if this.astray || (this.outbox.is_empty() && !this.ends_input) {
            return false;
        }
        match this.flush() {
            Ok(sent) => {
                let retry_at = this.outbox.retry_at;
                self.due_at(retry_at);
                sent
            }
            Err(astray) => {
                this.astray = true;
                this.outbox = Outbox::default();
                self.unfit(lane, format!("it wrote {astray}"));
                false
            }
        }
    }
}
