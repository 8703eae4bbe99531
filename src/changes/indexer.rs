//! The indexer: keeps the vector index true to the evidence in PostgreSQL, in the background, while the gateway
//! serves. It reads rows in the order of their ids, leaves out what the index already has in the same version and
//! embeds the rest, so it can be stopped and started at any moment. Later passes look only at what changed.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use crate::app::App;
use crate::error::{Error, Result};
use crate::model::searched::{Indexed, count_indexed, read_documents, read_indexed};
use crate::store::db::Session;
use crate::store::vectors::{Point, Sparse};

/// Rows read at once.
const BATCH: u32 = 256;
/// Texts embedded at once: small, so that a stop or a question never waits long.
const EMBED_BATCH: usize = 32;
/// Between passes.
const PAUSE: Duration = Duration::from_secs(5);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);
/// A row's `updated_at` is the begin of its transaction, which may commit this much later and still be seen.
const OVERLAP: TimeDelta = TimeDelta::minutes(2);
const REPORT: Duration = Duration::from_secs(5);

/// Runs until it is dropped.
pub async fn run(app: App) {
    if !app.searcher.embedder.is_on() || !app.searcher.vectors.is_on() {
        return;
    }
    let mut since = None;
    loop {
        let begun = Utc::now();
        match pass(&app, since).await {
            Ok(()) => {
                since = Some(begun - OVERLAP);
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                tracing::warn!(?error, "indexing failed; it goes on in a moment");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Looks at every row that changed since then, or at all of them.
async fn pass(app: &App, since: Option<DateTime<Utc>>) -> Result<()> {
    let session = app.db.session();
    let mut pending = count_indexed(&session).await?;
    report_size(app).await?;
    let (mut after, mut done, mut reported, started) = (None, 0, Instant::now(), Instant::now());
    loop {
        app.metrics.to_index.set(i64::try_from(pending).unwrap_or(i64::MAX));
        let rows = read_indexed(&session, after, BATCH).await?;
        let Some(last) = rows.last() else { break };
        after = Some(last.id);
        let read = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        for wanted in missing(app, rows).await?.chunks(EMBED_BATCH) {
            index(app, &session, wanted).await?;
            done += wanted.len();
            if reported.elapsed() > REPORT {
                reported = Instant::now();
                #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
                let rate = done as f64 / started.elapsed().as_secs_f64();
                tracing::info!(done, pending, "indexing evidence, {rate:.0} rows a second");
            }
        }
        pending = pending.saturating_sub(read);
    }
    app.metrics.to_index.set(0);
    if done > 0 {
        app.searcher.vectors.optimize().await?;
        app.searcher.vectors.flush().await?;
        tracing::info!(rows = done, seconds = started.elapsed().as_secs(), "evidence is indexed");
    }
    Ok(())
}

async fn report_size(app: &App) -> Result<()> {
    let indexed = app.searcher.vectors.count(None).await?;
    app.metrics.indexed.set(i64::try_from(indexed).unwrap_or(i64::MAX));
    Ok(())
}

/// The rows that the index does not have in their present version.
async fn missing(app: &App, rows: Vec<Indexed>) -> Result<Vec<Indexed>> {
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let known = app.searcher.vectors.versions(&ids).await?;
    Ok(rows
        .into_iter()
        .filter(|row| known.get(&row.id).is_none_or(|version| *version < row.version))
        .collect())
}

async fn index(app: &App, session: &Session, rows: &[Indexed]) -> Result<()> {
    let mut documents = read_documents(session, rows.iter().map(|row| row.id).collect()).await?;
    let texts: Vec<String> =
        documents.iter_mut().map(|document| std::mem::take(&mut document.text)).collect();
    let words: Vec<Sparse> = texts.iter().map(|text| app.searcher.words.document(text)).collect();
    let vectors = app.searcher.embedder.embed(texts).await?;
    if vectors.len() != documents.len() {
        return Err(Error::internal("the embedder gave back another number of vectors than it got texts"));
    }
    let points = documents.into_iter().zip(vectors).zip(words).map(|((document, dense), sparse)| Point {
        id: document.id,
        version: document.version,
        dense,
        sparse,
        payload: document.payload,
    });
    app.searcher.vectors.upsert(points.collect()).await?;
    app.searcher.vectors.flush().await?;
    report_size(app).await
}
