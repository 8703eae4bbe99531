//! How rare words are: what BM25 weighs them by. Counted among the points that a viewer may see, and not, as the
//! engines would, among all: else a score would tell how often a word stands in what the viewer may not see, and a
//! server of several shards would weigh one word in several ways.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{try_join, try_join_all};
use sha2::{Digest, Sha256};

use super::filter::{Filter, Reduced};
use super::stages::{Ask, Near};
use super::{Question, Sparse, Vectors};
use crate::error::Result;

/// Points that a word is counted in at most: more is common, whatever it is.
const COUNTED_MAX: usize = 5_000;
/// How long a count is believed. Counts need not be exact, and counting costs as much as searching.
const BELIEVED: Duration = Duration::from_secs(10);
/// Counts kept at most, of about 50 bytes.
const KEPT_MAX: usize = 100_000;

/// The counts of words, and of points, that were made lately.
#[derive(Debug, Default)]
pub(super) struct Rarity(Mutex<HashMap<Key, (Instant, usize)>>);

/// Among which points, and which word; `None` for the points themselves.
type Key = ([u8; 16], Option<u32>);

impl Rarity {
    /// Multiplies the weights of the questions' words by how rare they are: `ln(1 + (N - n + 0.5) / (n + 0.5))`, where
    /// n of N points have the word. One request for the words that are not known.
    pub(super) async fn weigh(&self, vectors: &Vectors, questions: &mut [Question]) -> Result<()> {
        let mut known: HashMap<Key, usize> = HashMap::new();
        let mut words: Vec<(Key, Ask)> = Vec::new();
        let mut scopes: Vec<(Key, Option<Filter>)> = Vec::new();
        for question in &*questions {
            let Some(sparse) = question.sparse.as_ref().filter(|sparse| !sparse.indices.is_empty()) else {
                continue;
            };
            let scope = name(question.scope.as_ref());
            let filter = match question.scope.clone().map_or(Reduced::Everything, Filter::reduced) {
                Reduced::Everything => None,
                // Such a question has no answer, whatever its words weigh.
                Reduced::Nothing => continue,
                Reduced::Some(filter) => Some(filter),
            };
            for word in sparse.indices.iter().copied().map(Some).chain([None]) {
                let key = (scope, word);
                if known.contains_key(&key) {
                    continue;
                }
                let count = self.get(&key);
                known.insert(key, count.unwrap_or(0));
                match (count, word) {
                    (Some(_), _) => {}
                    (None, Some(word)) => words.push((key, holding(word, filter.clone()))),
                    (None, None) => scopes.push((key, filter.clone())),
                }
            }
        }
        if !words.is_empty() || !scopes.is_empty() {
            let (word_keys, asks): (Vec<_>, Vec<_>) = words.into_iter().unzip();
            let (scope_keys, scopes): (Vec<_>, Vec<_>) = scopes.into_iter().unzip();
            let lists = async { if asks.is_empty() { Ok(Vec::new()) } else { vectors.lists(asks).await } };
            let counts = try_join_all(scopes.into_iter().map(|scope| vectors.count(scope)));
            let (lists, counts) = try_join(lists, counts).await?;
            let counts = lists.iter().map(Vec::len).chain(counts);
            for (key, count) in word_keys.into_iter().chain(scope_keys).zip(counts) {
                self.put(key, count);
                known.insert(key, count);
            }
        }
        for question in questions {
            let scope = name(question.scope.as_ref());
            let Some(Sparse { indices, values }) = &mut question.sparse else { continue };
            let all = known.get(&(scope, None)).copied().unwrap_or(0);
            for (word, weight) in indices.iter().zip(values) {
                let with = known.get(&(scope, Some(*word))).copied().unwrap_or(0);
                *weight *= rarity(with, all);
            }
        }
        Ok(())
    }

    fn get(&self, key: &Key) -> Option<usize> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).filter(|(at, _)| at.elapsed() < BELIEVED).map(|(_, count)| *count)
    }

    fn put(&self, key: Key, count: usize) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT_MAX {
            known.retain(|_, (at, _)| at.elapsed() < BELIEVED);
        }
        if known.len() < KEPT_MAX {
            known.insert(key, (Instant::now(), count));
        }
    }
}

/// A question for the points that have a word.
fn holding(word: u32, filter: Option<Filter>) -> Ask {
    let near = Near::Sparse(Sparse { indices: vec![word], values: vec![1.0] });
    Ask { near, filter, limit: COUNTED_MAX, exact: false, with_vectors: false }
}

fn name(scope: Option<&Filter>) -> [u8; 16] {
    let mut name = [0; 16];
    name.copy_from_slice(&Sha256::digest(format!("{scope:?}"))[..16]);
    name
}

#[allow(clippy::cast_precision_loss, reason = "counts are small, and weights need few digits")]
fn rarity(with: usize, all: usize) -> f32 {
    let (with, all) = (with as f32, all.max(with) as f32);
    (1.0 + (all - with + 0.5) / (with + 0.5)).ln()
}
