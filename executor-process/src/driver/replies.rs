//! What workers say: that they are there, what came of their calls, and whatever none in its right mind would say.

use executor_core::{
    BrokenCause,
    attachments::{Attachments, Encoded},
    codec, portable,
};
use std::{io, sync::atomic::Ordering, time::Instant};

use super::Driver;
use crate::{
    lane::{InFlight, Lane},
    records::Levels,
    supervisor::{Event, State},
    wire::{BareFrame, Cutter, Hello, Kind, WireError},
};

impl Driver {
    /// Takes what has come through the socket. `false`: nothing was there.
    pub(super) fn read_socket(&mut self, lane: usize) -> bool {
        if self.lanes[lane].hung_up {
            return false;
        }
        let Lane { greetings, arrivals, stream, .. } = &mut self.lanes[lane];
        match greetings.fill(stream, arrivals) {
            Ok(0) => self.lanes[lane].hang_up(),
            Ok(_) => {
                self.take_frames(lane, |lane| &mut lane.greetings);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(_) => self.lanes[lane].hang_up(),
        }
        false
    }

    /// Takes what all workers have answered. `false`: nothing was there, or too much of what they said is still to be told.
    pub(super) fn take_replies(&mut self) -> bool {
        !self.echo.teller.is_full() && (0..self.lanes.len()).fold(false, |any, lane| any | self.read_ring(lane))
    }

    /// Takes what the worker has answered. `false`: nothing was there.
    pub(super) fn read_ring(&mut self, lane: usize) -> bool {
        let Lane { reader, rings, astray, .. } = &mut self.lanes[lane];
        if *astray || !rings.has_replies() {
            return false;
        }
        match reader.fill_with(|bytes, most| rings.receive(bytes, most)) {
            Ok(_) => {
                self.take_frames(lane, |lane| &mut lane.reader);
                true
            }
            Err(why) => {
                *astray = true;
                self.unfit(lane, format!("it wrote {why}"));
                false
            }
        }
    }

    fn take_frames(&mut self, lane: usize, reader: fn(&mut Lane) -> &mut Cutter) {
        loop {
            match reader(&mut self.lanes[lane]).next() {
                Ok(Some(frame)) => {
                    if let Err(why) = self.take_frame(lane, frame) {
                        return self.unfit(lane, why);
                    }
                }
                Ok(None) => return,
                Err(error) => return self.unfit(lane, error.to_string()),
            }
        }
    }

    /// # Errors
    /// Why this frame cannot come from a worker in its right mind.
    fn take_frame(&mut self, lane: usize, frame: BareFrame) -> Result<(), String> {
        match frame.kind {
            Kind::Hello if !self.lanes[lane].greeted => {
                let hello = Hello::get(&frame.body).map_err(|error| error.to_string())?;
                Hello::of_this_process().accepts(hello)?;
                self.greeted(lane);
                Ok(())
            }
            Kind::Bell => Ok(()), // whoever heard it looks at the rings anyway
            Kind::Descriptor if self.lanes[lane].arrivals.number(frame.ticket) => Ok(()),
            Kind::Unfit => Err(String::from_utf8_lossy(&frame.body).into_owned()),
            Kind::Panicked => {
                self.lanes[lane].panic = codec::decode(&frame.body).ok();
                Ok(())
            }
            Kind::Record => {
                let speaker = self.lanes[lane].speaker_for(frame.ticket);
                self.echo.teller.record(speaker, frame.body);
                Ok(())
            }
            Kind::Reply | Kind::Skipped => {
                if frame.kind == Kind::Reply {
                    self.lanes[lane].hear_out(&mut self.echo);
                    self.lanes[lane].panic = None;
                    self.lanes[lane].says_out_of_memory = false;
                }
                let attachments = self.attachments_of(lane, &frame)?;
                let Some(call) = self.lanes[lane].pop_answered(frame.ticket) else {
                    return Err(format!("it answered call {}, which is not its next", frame.ticket));
                };
                match (frame.kind, call.parcel) {
                    (Kind::Reply, Some(parcel)) => {
                        self.lanes[lane].served = true;
                        self.restarts.served();
                        self.lanes[lane].tell_made(&parcel, frame.ticket);
                        let reply = Encoded { bytes: frame.body, attachments };
                        self.settle(parcel, |parcel| parcel.complete(reply));
                    }
                    (Kind::Reply, None) if self.lanes[lane].state == State::Starting => {
                        match portable::check(&frame.body) {
                            Ok(()) => self.ready(lane),
                            Err(failure) => {
                                self.break_down(BrokenCause::Initializer(Box::new(failure)));
                                self.on(lane, Event::Unfit);
                            }
                        }
                    }
                    (Kind::Reply, None) => return Err(format!("it made call {}, which was taken back", frame.ticket)),
                    (_, _cancelled) => {}
                }
                self.look_at_memory(lane);
                if self.lanes[lane].in_flight.is_empty() {
                    self.lanes[lane].forget_contexts();
                    // While too much is still to be printed, it stays where it is, and so do the words before it.
                    if !self.echo.is_full() {
                        self.read_last_words(lane);
                        self.lanes[lane].forget_words();
                    }
                    self.on(lane, Event::Drained);
                    self.idle(lane);
                }
                Ok(())
            }
            kind => Err(format!("it sent a frame {kind:?} out of turn")),
        }
    }

    /// The descriptors that belong to a frame. They were sent before it, through the socket.
    fn attachments_of(&mut self, lane: usize, frame: &BareFrame) -> Result<Attachments, String> {
        loop {
            if let Some(attachments) = self.lanes[lane].arrivals.take(frame.attachments) {
                return Ok(attachments);
            }
            if !self.read_socket(lane) {
                return Err(WireError::Attachments(frame.kind).to_string());
            }
        }
    }

    /// A worker has proved who it is.
    fn greeted(&mut self, lane: usize) {
        self.lanes[lane].greeted = true;
        if self.shared.chosen.output.is_attributed() {
            self.lanes[lane].outbox.put_notice(Kind::Flush, &[]);
        }
        self.lanes[lane].outbox.put_limits(&self.shared.chosen.limits);
        match &self.shared.chosen.initializer {
            None => self.ready(lane),
            Some(initializer) => {
                // It may take its time.
                self.lanes[lane].deadline = None;
                let ticket = self.lanes[lane].new_ticket();
                self.lanes[lane].outbox.put_call(ticket, initializer);
                self.lanes[lane].in_flight.push_back(InFlight { ticket, parcel: None, look_at: None });
            }
        }
    }

    fn ready(&mut self, lane: usize) {
        let levels = Levels::wanted();
        if !levels.are_none() {
            // After the initializer, which may have a logger of its own.
            self.lanes[lane].outbox.put_notice(Kind::Forward, &levels.bytes());
        }
        if let Some(finalizer) = &self.shared.chosen.finalizer {
            self.lanes[lane].outbox.put_at_exit(finalizer);
        }
        // ORDERING: Relaxed; it is told only.
        self.lanes[lane].channel.is_ready.store(true, Ordering::Relaxed);
        self.on(lane, Event::Ready);
        self.idle(lane);
        let age = self.shared.chosen.recycling.max_age;
        let due_at = age.and_then(|age| Instant::now().checked_add(age));
        self.lanes[lane].due_at = due_at;
        self.due_at(due_at);
        self.relieve();
    }

    /// A worker does what none should. One that never got ready shows that none will.
    pub(super) fn unfit(&mut self, lane: usize, why: String) {
        if self.lanes[lane].state == State::Starting {
            self.break_down(BrokenCause::Spawn(format!("a worker cannot serve this process: {why}")));
        }
        self.lanes[lane].note(&format!("concurrent-futures: the worker is ended, for {why}\n"));
        self.on(lane, Event::Unfit);
    }
}
