//! Owns the threads that compute: two bounded lanes, and a question never waits behind the index.
//!
//! Threads of our own instead of `spawn_blocking`, because the order matters: a worker takes a question first
//! and a piece of a batch only when no question waits, and one worker takes no pieces at all where there are several.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::bert::Bert;
use crate::error::{Error, Result};

/// Pieces that wait or run. More callers than that wait their turn without holding their texts' tokens here.
const PIECES_MAX: usize = 64;
/// More threads than this gain nothing on texts this short.
const THREADS_MAX: usize = 8;

/// The token ids of some texts, small enough to be computed at one go.
pub(super) type Tokens = Vec<Vec<u32>>;
type Vectors = Vec<Vec<f32>>;

#[derive(Debug)]
pub(super) struct Workers {
    shared: Arc<Shared>,
    pieces: Arc<Semaphore>,
}

#[derive(Debug)]
struct Shared {
    lanes: Mutex<Lanes>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Lanes {
    questions: VecDeque<Job>,
    pieces: VecDeque<Job>,
    closed: bool,
}

#[derive(Debug)]
struct Job {
    tokens: Tokens,
    reply: oneshot::Sender<candle_core::Result<Vectors>>,
    /// Held until the job is done or abandoned: the bound of the lane.
    place: OwnedSemaphorePermit,
}

impl Workers {
    /// Starts the threads. They end when this is dropped.
    pub(super) fn start(model: Bert) -> Result<Self> {
        let shared = Arc::new(Shared { lanes: Mutex::default(), wake: Condvar::new() });
        let workers = Self { shared: Arc::clone(&shared), pieces: Arc::new(Semaphore::new(PIECES_MAX)) };
        let model = Arc::new(model);
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        for number in 0..threads {
            let (shared, model) = (Arc::clone(&shared), Arc::clone(&model));
            let questions_only = number == 0 && threads > 1;
            // One thread computes one job alone: two jobs side by side are done sooner than two halves of each.
            let alone = rayon::ThreadPoolBuilder::new()
                .num_threads(1)
                .thread_name(move |_| format!("embedder-{number}"))
                .build()
                .map_err(Error::internal)?;
            alone.spawn(move || shared.work(&model, questions_only));
        }
        Ok(workers)
    }

    /// Computes before all pieces of batches.
    pub(super) async fn question(&self, tokens: Vec<u32>, place: OwnedSemaphorePermit) -> Result<Vec<f32>> {
        let vectors = self.run(|lanes| &mut lanes.questions, vec![tokens], place).await?;
        vectors.into_iter().next().ok_or_else(|| Error::internal("the embedder answered no vector"))
    }

    /// Computes when no question waits.
    pub(super) async fn piece(&self, tokens: Tokens) -> Result<Vectors> {
        let place = Arc::clone(&self.pieces).acquire_owned().await.map_err(Error::internal)?;
        self.run(|lanes| &mut lanes.pieces, tokens, place).await
    }

    async fn run(
        &self,
        lane: fn(&mut Lanes) -> &mut VecDeque<Job>,
        tokens: Tokens,
        place: OwnedSemaphorePermit,
    ) -> Result<Vectors> {
        let (reply, answer) = oneshot::channel();
        lane(&mut self.shared.lanes()).push_back(Job { tokens, reply, place });
        // All of them: the one that a single notification wakes might be the one that takes no pieces.
        self.shared.wake.notify_all();
        answer.await.map_err(Error::internal)?.map_err(Error::internal)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.lanes().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    /// Nothing that holds this lock can panic half-way, so a poisoned one is as good as new.
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, model: &Bert, questions_only: bool) {
        while let Some(job) = self.next(questions_only) {
            // The caller went away while the job waited.
            if job.reply.is_closed() {
                continue;
            }
            // A panic costs this one job, not the worker: its caller sees the reply dropped.
            if let Ok(vectors) = catch_unwind(AssertUnwindSafe(|| model.embed(&job.tokens))) {
                // Whoever has the answer finds the place free.
                drop(job.place);
                // A caller that went away while the job ran misses nothing.
                drop(job.reply.send(vectors));
            }
        }
    }

    fn next(&self, questions_only: bool) -> Option<Job> {
        let mut lanes = self.lanes();
        loop {
            if lanes.closed {
                return None;
            }
            if let Some(job) = lanes.questions.pop_front() {
                return Some(job);
            }
            if !questions_only && let Some(job) = lanes.pieces.pop_front() {
                return Some(job);
            }
            lanes = self.wake.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
