//! Shows an import to the person who waits for it: a bar on a terminal, otherwise a line now and then. On stderr,
//! because stdout is for data.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Progress, Summary};

const LINE_EVERY: Duration = Duration::from_secs(2);

/// The display of one import.
#[derive(Debug)]
pub struct Reporter {
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Instant,
}

impl Default for Reporter {
    fn default() -> Self {
        Self::new()
    }
}

impl Reporter {
    /// A bar if stderr is a terminal.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} lines  {per_sec}  {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        });
        let now = Instant::now();
        Self { bar, started: now, last_line: now }
    }

    /// Takes what `run` tells.
    pub fn show(&mut self, progress: Progress) {
        if let Some(bar) = &self.bar {
            bar.set_length(progress.lines_total);
            bar.set_position(progress.lines_done);
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let Progress { lines_done, lines_total, rows_written } = progress;
            say(&format!("{lines_done} of {lines_total} lines, {rows_written} rows written"));
        }
    }

    /// Says how it ended.
    pub fn finish(&self, summary: &Summary) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if summary.already_done {
            return say(
                "nothing to do: this source has been imported before (--again goes through it once more)",
            );
        }
        if summary.resumed_after > 0 {
            say(&format!("went on after line {}", summary.resumed_after));
        }
        for problem in &summary.problems {
            say(problem);
        }
        let unlisted = summary.lines_skipped.saturating_sub(summary.problems.len() as u64);
        if unlisted > 0 {
            say(&format!("… and {unlisted} more lines that are wrong"));
        }
        say(&format!(
            "{} lines in {:.1} s: {} rows written, {} unchanged, {} lines skipped",
            summary.lines,
            self.started.elapsed().as_secs_f64(),
            summary.rows_written,
            summary.rows_unchanged,
            summary.lines_skipped,
        ));
    }
}

fn say(text: &str) {
    if let Err(error) = writeln!(std::io::stderr(), "{text}") {
        tracing::debug!(%error, "stderr is closed");
    }
}
