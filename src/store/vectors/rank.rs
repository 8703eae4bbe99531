//! How lists of hits become one: fusion by rank, diversity, and the vector that examples stand for. Done here and
//! not by the engines, so that both back ends give the same order and every stage's score and rank stay known.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Answer, Hit};

/// What is added to ranks before they are inverted: with the customary 60 a hit that both lists have in their first
/// dozens goes before one that only one list has at its top.
const RRF_K: f32 = 60.0;

/// Where a stage of a search had a hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    /// Its place in the stage's list, from 1.
    pub rank: usize,
    /// What the stage thought of it: a cosine, or BM25.
    pub score: f32,
}

/// A hit of the lists together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The id of the point.
    pub id: Uuid,
    /// The sum of `1 / (60 + rank)` over the stages that have it; more is better.
    pub score: f32,
    /// What the nearness of vectors said.
    pub dense: Option<Stage>,
    /// What the words said.
    pub sparse: Option<Stage>,
}

impl Answer {
    /// Both lists as one by reciprocal rank fusion, best first, equal ones by id. Of one list alone it keeps the order.
    ///
    /// The order depends on how deep the lists are: ask for the same `limit` again to get the pages of one order.
    pub fn fused(&self) -> Vec<Ranked> {
        let mut ranked: HashMap<Uuid, Ranked> = HashMap::with_capacity(self.dense.len() + self.sparse.len());
        let mut add = |hits: &[Hit], stage: fn(&mut Ranked) -> &mut Option<Stage>| {
            for (index, hit) in hits.iter().enumerate() {
                let found = ranked.entry(hit.id).or_insert(Ranked {
                    id: hit.id,
                    score: 0.0,
                    dense: None,
                    sparse: None,
                });
                *stage(found) = Some(Stage { rank: index + 1, score: hit.score });
                found.score += reciprocal(index + 1);
            }
        };
        add(&self.dense, |ranked| &mut ranked.dense);
        add(&self.sparse, |ranked| &mut ranked.sparse);
        let mut ranked: Vec<Ranked> = ranked.into_values().collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
        ranked
    }
}

#[allow(clippy::cast_precision_loss, reason = "ranks are small")]
fn reciprocal(rank: usize) -> f32 {
    1.0 / (RRF_K + rank as f32)
}

/// The best `limit` by maximal marginal relevance: each next one is good and unlike those before it. `diversity` is
/// from 0.0, the order as it is, to 1.0, unlikeness alone. `vectors` are those of the [`Answer`]; goodness is the
/// score as a share of the best score, likeness the cosine. Takes time in the order of `limit` × hits.
pub fn diversify(
    mut ranked: Vec<Ranked>,
    vectors: &HashMap<Uuid, Vec<f32>>,
    diversity: f32,
    limit: usize,
) -> Vec<Ranked> {
    let diversity = diversity.clamp(0.0, 1.0);
    let best = ranked.first().map_or(1.0, |hit| hit.score).max(f32::MIN_POSITIVE);
    // How like each candidate is to the most alike of those taken.
    let mut alike = vec![f32::NEG_INFINITY; ranked.len()];
    let mut taken = Vec::with_capacity(limit.min(ranked.len()));
    while taken.len() < limit && !ranked.is_empty() {
        let value = |index: usize| {
            let likeness = if taken.is_empty() { 0.0 } else { alike[index] };
            (1.0 - diversity) * ranked[index].score / best - diversity * likeness
        };
        // The first of equal ones: the order of the hits settles ties.
        let next = (0..ranked.len()).reduce(|a, b| if value(b) > value(a) { b } else { a }).unwrap_or(0);
        let hit = ranked.remove(next);
        alike.remove(next);
        for (candidate, alike) in ranked.iter().zip(&mut alike) {
            let pair = vectors.get(&hit.id).zip(vectors.get(&candidate.id));
            *alike = alike.max(pair.map_or(0.0, |(one, other)| cosine(one, other)));
        }
        taken.push(hit);
    }
    taken
}

/// The cosine of the angle between two vectors.
pub fn cosine(one: &[f32], other: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let norm = (dot(one, one) * dot(other, other)).sqrt();
    if norm > 0.0 { dot(one, other) / norm } else { 0.0 }
}

/// The vector to search by for points like some examples and unlike others: the mean of the likes, and as far again
/// from the mean of the unlikes. `None` if that is no direction, as without examples.
pub fn toward(likes: &[&[f32]], unlikes: &[&[f32]]) -> Option<Vec<f32>> {
    let like = mean(likes);
    let unlike = mean(unlikes);
    let vector: Vec<f32> = match (like, unlike) {
        (Some(like), Some(unlike)) => {
            like.iter().zip(&unlike).map(|(like, unlike)| 2.0 * like - unlike).collect()
        }
        (Some(like), None) => like,
        (None, Some(unlike)) => unlike.iter().map(|number| -number).collect(),
        (None, None) => return None,
    };
    vector.iter().any(|number| number.abs() > f32::EPSILON).then_some(vector)
}

fn mean(vectors: &[&[f32]]) -> Option<Vec<f32>> {
    let mut sum = vec![0.0; vectors.first()?.len()];
    for vector in vectors {
        sum.iter_mut().zip(*vector).for_each(|(sum, number)| *sum += number);
    }
    #[allow(clippy::cast_precision_loss, reason = "examples are few")]
    let count = vectors.len() as f32;
    sum.iter_mut().for_each(|sum| *sum /= count);
    Some(sum)
}
