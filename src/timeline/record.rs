//! What is kept of what an observer is told. Times are nanoseconds since the timeline began.

use executor_core::{
    Function, TaskEvent, TaskEventKind, TaskId, WorkerEnd, WorkerEvent, WorkerEventKind, WorkerInfo, WorkerKind,
};
use std::{collections::HashMap, hash::Hash, panic::Location, process, sync::Arc, thread, time::Instant};

use super::symbols;

type Site = &'static Location<'static>;

pub(super) struct Record {
    began: Instant,
    lanes: Vec<Lane>,
    lane_of: HashMap<WorkerInfo, usize>,
    /// Tasks that have not ended.
    open: HashMap<TaskId, Open>,
    blocks: Vec<Block>,
    functions: Kinds<(Function, Site)>,
    errors: Kinds<String>,
    cancelled: u64,
    missing: u64,
}

/// A worker's life.
#[derive(Clone)]
pub(super) struct Lane {
    pub(super) worker: WorkerInfo,
    pub(super) began: u64,
    pub(super) end: Option<(u64, WorkerEnd)>,
}

struct Open {
    submitted: u64,
    /// Which lane, and since when.
    running: Option<(usize, u64)>,
    function: usize,
}

/// A call that was made.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) lane: usize,
    pub(super) began: u64,
    pub(super) ended: u64,
    /// How long it waited before.
    pub(super) waited: u64,
    pub(super) task: u64,
    /// Of the functions' names.
    pub(super) function: usize,
    pub(super) outcome: Outcome,
    /// Of the errors.
    pub(super) error: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Failed,
    /// It failed, and was made again.
    Retried,
    Running,
}

/// Each of several things once, with a number.
struct Kinds<T> {
    all: Vec<T>,
    numbers: HashMap<T, usize>,
}

impl<T> Default for Kinds<T> {
    fn default() -> Self {
        Kinds { all: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Kinds<T> {
    fn number(&mut self, thing: T) -> usize {
        *self.numbers.entry(thing).or_insert_with_key(|thing| {
            self.all.push(thing.clone());
            self.all.len() - 1
        })
    }
}

impl Record {
    pub(super) fn new(began: Instant) -> Record {
        Record {
            began,
            lanes: Vec::new(),
            lane_of: HashMap::new(),
            open: HashMap::new(),
            blocks: Vec::new(),
            functions: Kinds::default(),
            errors: Kinds::default(),
            cancelled: 0,
            missing: 0,
        }
    }

    pub(super) fn calls(&self) -> usize {
        self.blocks.len()
    }

    fn since_began(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_nanos() as u64
    }

    fn lane(&mut self, worker: &WorkerInfo, at: u64) -> usize {
        if let Some(lane) = self.lane_of.get(worker) {
            return *lane;
        }
        self.lanes.push(Lane { worker: worker.clone(), began: at, end: None });
        self.lane_of.insert(worker.clone(), self.lanes.len() - 1);
        self.lanes.len() - 1
    }

    pub(super) fn task(&mut self, event: &TaskEvent) {
        let at = self.since_began(event.at);
        match &event.kind {
            TaskEventKind::Submitted => _ = self.open(event, at),
            TaskEventKind::Started { worker } => {
                let lane = self.lane(worker, at);
                self.open(event, at).running = Some((lane, at));
            }
            TaskEventKind::Retried { error, .. } => {
                self.block(event, at, Outcome::Retried, Some(error.to_string()));
                // It waits from now on.
                let open = self.open(event, at);
                open.submitted = at;
                open.running = None;
            }
            TaskEventKind::Ended { error: None } => {
                self.block(event, at, Outcome::Done, None);
                self.open.remove(&event.task);
            }
            TaskEventKind::Ended { error: Some(error) } => {
                self.cancelled += u64::from(error.is_cancelled());
                self.block(event, at, Outcome::Failed, Some(error.to_string()));
                self.open.remove(&event.task);
            }
            _ => {}
        }
    }

    fn open(&mut self, event: &TaskEvent, at: u64) -> &mut Open {
        let function = self.functions.number((event.function, event.submitted_at));
        self.open.entry(event.task).or_insert(Open { submitted: at, running: None, function })
    }

    /// An attempt is over. One that never began leaves no block.
    fn block(&mut self, event: &TaskEvent, ended: u64, outcome: Outcome, error: Option<String>) {
        let Some(Open { submitted, running: Some((lane, began)), function }) = self.open.get(&event.task) else {
            return;
        };
        let error = error.map(|error| self.errors.number(error));
        self.blocks.push(Block {
            lane: *lane,
            began: *began,
            ended: ended.max(*began),
            waited: began.saturating_sub(*submitted),
            task: event.task.number(),
            function: *function,
            outcome,
            error,
        });
    }

    pub(super) fn worker(&mut self, event: &WorkerEvent) {
        let at = self.since_began(event.at);
        let lane = self.lane(&event.worker, at);
        if let WorkerEventKind::Ended(end) = &event.kind {
            self.lanes[lane].end = Some((at, end.clone()));
        }
    }

    pub(super) fn missing(&mut self, events: u64) {
        self.missing += events;
    }

    pub(super) fn span(&mut self, name: &'static str, site: Site, began: Instant, ended: Instant) {
        let (began, ended) = (self.since_began(began), self.since_began(ended));
        let thread = thread::current();
        let pool: Arc<str> = "this program".into();
        let worker = WorkerInfo::new(&pool, thread.name().unwrap_or("a thread"), process::id(), WorkerKind::Caller);
        let lane = self.lane(&worker, began);
        let function = self.functions.number((Function::named(name), site));
        self.blocks.push(Block {
            lane,
            began,
            ended,
            waited: 0,
            task: 0,
            function,
            outcome: Outcome::Done,
            error: None,
        });
    }

    /// What is known now; what runs still does.
    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        let now = self.since_began(now);
        let mut blocks = self.blocks.clone();
        for (task, open) in &self.open {
            if let Some((lane, began)) = open.running {
                blocks.push(Block {
                    lane,
                    began,
                    ended: now.max(began),
                    waited: began.saturating_sub(open.submitted),
                    task: task.number(),
                    function: open.function,
                    outcome: Outcome::Running,
                    error: None,
                });
            }
        }
        // The outer one of two that begin together comes first.
        blocks.sort_by_key(|block| (block.lane, block.began, u64::MAX - block.ended));
        Snapshot {
            lanes: self.lanes.clone(),
            blocks,
            functions: self.functions.all.clone(),
            errors: self.errors.all.clone(),
            waiting: self.open.values().filter(|open| open.running.is_none()).count() as u64,
            cancelled: self.cancelled,
            missing: self.missing,
        }
    }
}

pub(super) struct Snapshot {
    lanes: Vec<Lane>,
    blocks: Vec<Block>,
    functions: Vec<(Function, Site)>,
    errors: Vec<String>,
    waiting: u64,
    cancelled: u64,
    missing: u64,
}

/// What is to be written.
pub(super) struct Recorded {
    pub(super) lanes: Vec<Lane>,
    /// By lane and beginning.
    pub(super) blocks: Vec<Block>,
    /// Name and submit site of each.
    pub(super) functions: Vec<(String, String)>,
    pub(super) errors: Vec<String>,
    /// Calls that have not begun.
    pub(super) waiting: u64,
    pub(super) cancelled: u64,
    /// Events that nobody could keep.
    pub(super) missing: u64,
}

impl Snapshot {
    /// Looks up what functions are called.
    pub(super) fn named(self) -> Recorded {
        let name = |(function, site): (Function, Site)| (symbols::name(function, site), site.to_string());
        Recorded {
            lanes: self.lanes,
            blocks: self.blocks,
            functions: self.functions.into_iter().map(name).collect(),
            errors: self.errors,
            waiting: self.waiting,
            cancelled: self.cancelled,
            missing: self.missing,
        }
    }
}

impl Recorded {
    /// The blocks of one lane.
    pub(super) fn blocks_of(&self, lane: usize) -> &[Block] {
        let from = self.blocks.partition_point(|block| block.lane < lane);
        let to = self.blocks.partition_point(|block| block.lane <= lane);
        &self.blocks[from..to]
    }
}
