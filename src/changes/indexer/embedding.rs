//! Texts to vectors, where one text that the embedder does not take must not hold up the others. Whether it is the text
//! or the embedder is found out by asking for a text that is known to be good.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use tokio::time::sleep;

use crate::error::{Error, Result};
use crate::store::embedder::Embedder;

/// How often a text is tried by itself.
const ATTEMPTS: u32 = 3;
/// Before the second attempt; twice as long before the third.
const PAUSE: Duration = Duration::from_millis(250);
/// A text that every embedder takes.
const GOOD: &str = "Does it work?";

/// The vectors of texts, in their order; for one that the embedder does not take, what it said and after how many
/// attempts.
///
/// Fails if the embedder takes nothing at all.
pub(super) async fn embed(
    embedder: &Embedder,
    texts: Vec<String>,
) -> Result<Vec<Result<Vec<f32>, (String, u32)>>> {
    let mut found = vec![Err((String::new(), 0)); texts.len()];
    let mut parts: VecDeque<Range<usize>> = VecDeque::new();
    if !texts.is_empty() {
        parts.push_back(0..texts.len());
    }
    while let Some(part) = parts.pop_front() {
        match try_once(embedder, &texts[part.clone()]).await {
            Ok(vectors) => {
                for (place, vector) in part.zip(vectors) {
                    found[place] = Ok(vector);
                }
            }
            Err(error) => {
                sees_good(embedder, &error).await?;
                let (start, half) = (part.start, part.start + part.len() / 2);
                if part.len() > 1 {
                    parts.extend([start..half, half..part.end]);
                } else {
                    found[start] = alone(embedder, &texts[part], error).await?;
                }
            }
        }
    }
    Ok(found)
}

/// One text that has failed once.
async fn alone(
    embedder: &Embedder,
    text: &[String],
    mut error: Error,
) -> Result<Result<Vec<f32>, (String, u32)>> {
    for attempt in 1..ATTEMPTS {
        sleep(PAUSE * attempt).await;
        match try_once(embedder, text).await {
            Ok(mut vectors) => return Ok(Ok(vectors.swap_remove(0))),
            Err(failed) => error = failed,
        }
        sees_good(embedder, &error).await?;
    }
    // The embedder's own words are made to be shown to operators: no text and no key is in them.
    let reason = error.internal_text().unwrap_or_else(|| error.message().to_owned());
    Ok(Err((reason, ATTEMPTS)))
}

async fn try_once(embedder: &Embedder, texts: &[String]) -> Result<Vec<Vec<f32>>> {
    let vectors = embedder.embed(texts.to_vec()).await?;
    if vectors.len() != texts.len() {
        return Err(Error::internal("the embedder gave back another number of vectors than it got texts"));
    }
    Ok(vectors)
}

/// Passes the failure on if the embedder does not take what is good either.
async fn sees_good(embedder: &Embedder, failure: &Error) -> Result<()> {
    match embedder.embed(vec![GOOD.to_owned()]).await {
        Ok(_) => Ok(()),
        Err(_) => Err(failure.clone()),
    }
}
