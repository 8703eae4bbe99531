//! `reindex`: makes a new index beside the present one, which goes on serving, and puts it in its place.
//!
//! What an interrupted attempt left is gone on with: the draft is compared with the table, and only what it lacks is
//! written. At the end the draft follows the change log as the indexer does, so that hardly anything is missing from
//! it when it is published; the running indexer goes on from there.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;

use crate::app::index_layout;
use crate::changes::indexer::bookmark::Bookmark;
use crate::changes::indexer::comparison::Comparison;
use crate::changes::indexer::writer::{LOOK, Reborn, STEP, Touched, Writer};
use crate::cli::{say, serve};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::model::change::{Place, now, read};
use crate::model::parked;
use crate::model::searched::count_indexed;
use crate::store::db::{Db, Session};
use crate::store::embedder::Embedder;
use crate::store::redis::Redis;
use crate::store::vectors::{Vectors, Words};
use crate::telemetry::Metrics;

/// Changes read at once.
const PAGE: usize = 1_000;
/// Between two lines where there is no terminal for a bar.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// How long a running gateway may take to begin with the parked rows, and between two looks at them.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The options of `reindex`.
#[derive(Debug, Args)]
pub struct Reindex {
    /// Only have the running gateway try the rows again that the embedder did not take.
    #[arg(long)]
    parked: bool,
}

impl Reindex {
    /// Rebuilds the index, or has what is parked tried again.
    pub async fn run(self, config: &Config) -> Result<()> {
        let db = Db::connect(config.required_database_url()?, &config.db_options()).await?;
        let metrics = Arc::new(Metrics::new()?);
        let embedder = Embedder::open(config, Redis::Off, metrics.clone()).await?;
        if !embedder.is_on() {
            return Err(Error::new(Code::Unavailable, "nothing is embedded, as --embedder is off"));
        }
        if self.parked {
            return retry_parked(&db.session(), embedder.model()).await;
        }
        let layout = index_layout(&embedder);
        let (settings, dir) = (&config.vectors, config.vectors_dir());
        let draft = Vectors::draft(settings, &dir, layout.clone()).await?;
        let words = Words::new()?;
        let mut writer = Writer::to(draft.clone(), db.session(), embedder, words, metrics.indexer.clone());
        writer.insists = true;
        if draft.shared_name().is_some() {
            // Of another model, or another layout, it cannot be opened, and there is nothing to copy. A folder may be
            // open in the gateway, which must be able to start meanwhile.
            writer.source = Vectors::open(settings, &dir, layout).await.ok();
        }
        let mut rebuild = Rebuild { session: db.session(), draft, writer, reporter: Reporter::new() };
        let (stop, _) = serve::stop_signals()?;
        let is_done = tokio::select! {
            done = rebuild.run() => done.map(|()| true)?,
            () = stop => false,
        };
        if is_done {
            return Ok(());
        }
        rebuild.writer.flush().await?;
        rebuild.reporter.clear();
        let text =
            "stopped; the same command goes on where this one was, and the present index serves meanwhile";
        Err(Error::new(Code::Unavailable, text))
    }
}

struct Rebuild {
    session: Session,
    draft: Vectors,
    writer: Writer,
    reporter: Reporter,
}

impl Rebuild {
    async fn run(&mut self) -> Result<()> {
        let begun = Instant::now();
        let total = count_indexed(&self.session).await?;
        // The place of an earlier attempt: what it wrote may have changed since without a higher version.
        let found = self.draft.bookmark().await?.as_deref().and_then(Bookmark::read);
        let mut place = match found {
            Some(found) => found.place,
            None => Place::after(Arc::new(now(&self.session).await?)),
        };
        let bookmark = Bookmark::unfinished(&place);
        self.draft.set_bookmark(bookmark.text()).await?;
        self.fill(total).await?;
        self.writer.flush().await?;
        // What is slow comes before the log is caught up with.
        self.draft.optimize().await?;
        place = self.catch_up(place).await?;
        self.draft.set_bookmark(bookmark.at(&place).text()).await?;
        self.writer.flush().await?;
        let rows = self.draft.count(None).await?;
        self.draft.publish().await?;
        self.reporter.clear();
        say(&format!(
            "the new index is in place: {rows} rows, of which {} were written in {:.1} s",
            self.writer.written,
            begun.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Writes what the draft lacks.
    async fn fill(&mut self, total: u64) -> Result<()> {
        let mut comparison = Comparison::new(self.session.clone(), self.draft.clone());
        while let Some(ids) = comparison.next().await? {
            for part in ids.chunks(LOOK) {
                let due = self.writer.look(part, Reborn::Compared).await?;
                let mut left = due.len() as u64;
                for step in due.chunks(STEP) {
                    self.reporter.show(comparison.passed.saturating_sub(left), total);
                    self.writer.step(step).await?;
                    left -= step.len() as u64;
                }
            }
            self.reporter.show(comparison.passed, total);
        }
        Ok(())
    }

    /// Writes what was changed since, up to now.
    async fn catch_up(&mut self, mut place: Place) -> Result<Place> {
        loop {
            let slice = read(&self.session, &place, None, PAGE).await?;
            // Somebody may write all the time: the rest is the running indexer's.
            let is_now = slice.changes.len() < PAGE && !slice.is_partial();
            let touched = Touched::by(&slice.changes, |_| false);
            if touched.truncated {
                self.fill(0).await?;
            }
            for part in touched.ids.chunks(LOOK) {
                let reborn = Reborn::These(&touched.reborn);
                for step in self.writer.look(part, reborn).await?.chunks(STEP) {
                    self.writer.step(step).await?;
                }
            }
            place = slice.place;
            if is_now {
                return Ok(place);
            }
        }
    }
}

/// Asks the gateway that indexes to try again, and waits until it has.
async fn retry_parked(session: &Session, model: &str) -> Result<()> {
    let wanted = parked::request_retry(session, model).await?;
    if wanted == 0 {
        say("no row is parked");
        return Ok(());
    }
    let rows = if wanted == 1 { "row" } else { "rows" };
    let (mut left, mut moved) = (i64::MAX, Instant::now());
    while moved.elapsed() < PATIENCE {
        let now = parked::count_requested(session, model).await?;
        if now == 0 {
            let (failed, _) = parked::waiting(session, model, 0).await?;
            say(&format!("{failed} of {wanted} {rows} failed again; `doctor` says why"));
            return Ok(());
        }
        if now < left {
            (left, moved) = (now, Instant::now());
        }
        sleep(LOOK_EVERY).await;
    }
    say(&format!("{left} of {wanted} {rows} wait for a gateway that indexes: it tries them when it runs"));
    Ok(())
}

/// Shows how far it is: a bar on a terminal, otherwise a line now and then. On stderr, because stdout is for data.
struct Reporter {
    bar: Option<ProgressBar>,
    begun: Option<(Instant, u64)>,
    last_line: Instant,
}

impl Reporter {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} rows  {per_sec}  {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        });
        Self { bar, begun: None, last_line: Instant::now() }
    }

    fn show(&mut self, done: u64, total: u64) {
        // Rows come and go meanwhile.
        let total = total.max(done);
        // What an earlier attempt left is no speed.
        let (begun, from) = *self.begun.get_or_insert((Instant::now(), done));
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let rate = (done - from.min(done)) as f64 / begun.elapsed().as_secs_f64();
            let left = if rate > 0.0 { (total - done) as f64 / rate } else { 0.0 };
            say(&format!("{done} of {total} rows, {rate:.0} rows/s, {left:.0} s left"));
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
