//! What both back ends share in answering: questions become lists to ask for, and lists become answers in which ids
//! decide among equal scores.

use super::filter::{Filter, Reduced};
use super::{Answer, DELETED_AT, Hit, Question, Sparse, Vectors, WINDOW_MAX};
use crate::error::{Error, Result};

/// How many hits beyond the end of a list are asked for at first, and at most, to see whether it ends among equals.
///
/// Equal scores are common, for equal texts have equal vectors and few words make few scores, and an engine cuts among
/// them as it likes. So it is asked for more until a lower score ends the list.
const BEYOND: usize = 16;
const BEYOND_MAX: usize = 1_024;

/// One list to ask a back end for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) near: Near,
    pub(super) filter: Option<Filter>,
    pub(super) limit: usize,
    pub(super) exact: bool,
    pub(super) with_vectors: bool,
}

/// What a list is ordered by the nearness to.
#[derive(Debug, Clone)]
pub(super) enum Near {
    Dense(Vec<f32>),
    Sparse(Sparse),
}

/// Hits, each with its dense vector if that was asked for.
pub(super) type List = Vec<(Hit, Option<Vec<f32>>)>;

/// An ask that is not answered yet, and where its answer belongs.
struct Pending {
    question: usize,
    wanted: usize,
    ask: Ask,
}

/// Answers questions by asking for all lists at once, and again for those that ended among equals.
pub(super) async fn answer(vectors: &Vectors, mut questions: Vec<Question>) -> Result<Vec<Answer>> {
    vectors.weigh(&mut questions).await?;
    let dimension = vectors.dimension()?;
    let mut answers = vec![Answer::default(); questions.len()];
    let mut pending = Vec::new();
    for (index, question) in questions.into_iter().enumerate() {
        pending.extend(asks(index, question, dimension)?);
    }
    while !pending.is_empty() {
        let found = vectors.lists(pending.iter().map(|pending| pending.ask.clone()).collect()).await?;
        if found.len() != pending.len() {
            return Err(Error::unavailable("the vector index", "it answered another number of questions"));
        }
        let mut again = Vec::new();
        for (mut pending, list) in pending.into_iter().zip(found) {
            let beyond = pending.ask.limit - pending.wanted;
            if ends_among_equals(&list, &pending) && beyond < BEYOND_MAX {
                pending.ask.limit = pending.wanted + BEYOND_MAX.min(beyond * 8);
                again.push(pending);
            } else {
                put(&mut answers[pending.question], &pending, list);
            }
        }
        pending = again;
    }
    Ok(answers)
}

fn asks(index: usize, question: Question, dimension: usize) -> Result<Vec<Pending>> {
    let Question { dense, sparse, scope, filter, limit, exact, with_vectors } = question;
    if let Some(vector) = &dense {
        check(vector, dimension).map_err(|text| Error::bad_input("vector", text))?;
    }
    if limit > WINDOW_MAX {
        return Err(Error::bad_input("first", format!("a search goes no deeper than {WINDOW_MAX} hits")));
    }
    let filter = match Filter::both(scope, filter).map_or(Reduced::Everything, Filter::reduced) {
        Reduced::Everything => None,
        Reduced::Nothing => return Ok(Vec::new()),
        Reduced::Some(filter) => Some(filter),
    };
    if limit == 0 {
        return Ok(Vec::new());
    }
    let sparse = sparse.filter(|words| !words.indices.is_empty());
    let nears = dense.map(Near::Dense).into_iter().chain(sparse.map(Near::Sparse));
    let asks = nears.map(|near| Pending {
        question: index,
        wanted: limit,
        ask: Ask { near, filter: filter.clone(), limit: limit + BEYOND, exact, with_vectors },
    });
    Ok(asks.collect())
}

fn ends_among_equals(list: &List, pending: &Pending) -> bool {
    let score = |index: usize| list.get(index).map(|(hit, _)| hit.score);
    list.len() >= pending.ask.limit && score(pending.wanted - 1) == score(pending.ask.limit - 1)
}

fn put(answer: &mut Answer, pending: &Pending, mut list: List) {
    list.sort_by(|(a, _), (b, _)| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
    list.truncate(pending.wanted);
    let hits = match pending.ask.near {
        Near::Dense(_) => &mut answer.dense,
        Near::Sparse(_) => &mut answer.sparse,
    };
    for (hit, vector) in list {
        hits.push(hit);
        if let Some(vector) = vector {
            answer.vectors.insert(hit.id, vector);
        }
    }
}

/// Whether a vector can be compared with others of this dimension, and if not, why.
pub(super) fn check(vector: &[f32], dimension: usize) -> Result<(), String> {
    if vector.len() != dimension {
        return Err(format!("a vector has {dimension} numbers here, not {}", vector.len()));
    }
    if vector.iter().all(|number| number.is_finite()) {
        Ok(())
    } else {
        Err("a vector has finite numbers only".to_owned())
    }
}

/// The filter for points that are there, as deleted ones keep a payload. (They have no vectors, so searches do not
/// need it.) `None` if no point can fit.
pub(super) fn living(filter: Option<Filter>) -> Option<Filter> {
    match filter.map_or(Reduced::Everything, Filter::reduced) {
        Reduced::Everything => Some(Filter::Missing(DELETED_AT)),
        Reduced::Nothing => None,
        Reduced::Some(filter) => Some(Filter::All(vec![Filter::Missing(DELETED_AT), filter])),
    }
}
