//! The words of the protocol: how points, filters and questions are said to the server, and what it answers.

use std::collections::HashMap;
use std::ops::Bound;

use chrono::{DateTime, Utc};
use qdrant_client::Payload;
use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::vectors::VectorsOptions;
use qdrant_client::qdrant::{
    AcornSearchParams, Condition, DatetimeRange, DenseVector, FieldCondition, Filter as Remote,
    HasIdCondition, IsEmptyCondition, Match, NamedVectors, PointId, PointStruct, PointsIdsList,
    PointsSelector, QuantizationSearchParams, Query, QueryPoints, Range, RepeatedStrings, ScoredPoint,
    SearchParams, SparseVector, Timestamp, Value, Vector, VectorInput, Vectors, VectorsOutput, query, vector,
    vector_input, vector_output, vectors_output,
};
use serde_json::Value as Json;
use uuid::Uuid;

use super::super::stages::{Ask, List, Near};
use super::super::{BM25, DENSE, Filter, GRAPH_CANDIDATES, Hit, Point, Sparse, VERSION};

/// How many more hits than asked for are scored again by their full vectors, if those searched by are smaller.
const OVERSAMPLING: f64 = 2.0;

pub(super) fn point(point: Point) -> PointStruct {
    let Point { id, version, dense, sparse, mut payload } = point;
    payload.insert(VERSION.to_owned(), version.into());
    let mut vectors =
        HashMap::from([(DENSE.to_owned(), named(vector::Vector::Dense(DenseVector { data: dense })))]);
    if !sparse.indices.is_empty() {
        vectors.insert(BM25.to_owned(), named(vector::Vector::Sparse(words(sparse))));
    }
    PointStruct { id: Some(id.into()), payload: Payload::from(payload).into(), vectors: Some(all(vectors)) }
}

/// A point that no search finds.
pub(super) fn payload_only(id: Uuid, payload: Json) -> PointStruct {
    let payload = match payload {
        Json::Object(payload) => Payload::from(payload).into(),
        _ => HashMap::new(),
    };
    PointStruct { id: Some(id.into()), payload, vectors: Some(all(HashMap::new())) }
}

fn named(vector: vector::Vector) -> Vector {
    Vector { vector: Some(vector), ..Vector::default() }
}

fn all(vectors: HashMap<String, Vector>) -> Vectors {
    Vectors { vectors_options: Some(VectorsOptions::Vectors(NamedVectors { vectors })) }
}

fn words(sparse: Sparse) -> SparseVector {
    SparseVector { values: sparse.values, indices: sparse.indices }
}

pub(super) fn query(ask: Ask, collection_name: String, quantized: bool) -> QueryPoints {
    let (near, using) = match ask.near {
        Near::Dense(data) => (vector_input::Variant::Dense(DenseVector { data }), DENSE),
        Near::Sparse(sparse) => (vector_input::Variant::Sparse(words(sparse)), BM25),
    };
    let filtered = ask.filter.is_some();
    let near = VectorInput { variant: Some(near) };
    let rescored = QuantizationSearchParams {
        rescore: Some(true),
        oversampling: Some(OVERSAMPLING),
        ..QuantizationSearchParams::default()
    };
    QueryPoints {
        collection_name,
        query: Some(Query { variant: Some(query::Variant::Nearest(near)) }),
        using: Some(using.to_owned()),
        filter: ask.filter.as_ref().map(filter),
        params: Some(SearchParams {
            hnsw_ef: Some(GRAPH_CANDIDATES as u64),
            exact: Some(ask.exact),
            acorn: filtered.then_some(AcornSearchParams { enable: Some(true), max_selectivity: None }),
            quantization: quantized.then_some(rescored),
            ..SearchParams::default()
        }),
        limit: Some(ask.limit as u64),
        with_payload: Some(false.into()),
        with_vectors: ask.with_vectors.then(|| vec![DENSE].into()),
        ..QueryPoints::default()
    }
}

pub(super) fn list(points: Vec<ScoredPoint>) -> List {
    let hit = |point: ScoredPoint| {
        let vector = point.vectors.and_then(|vectors| dense(Some(vectors)));
        Some((Hit { id: id(point.id)?, score: point.score }, vector))
    };
    points.into_iter().filter_map(hit).collect()
}

pub(super) fn dense(vectors: Option<VectorsOutput>) -> Option<Vec<f32>> {
    let vectors_output::VectorsOptions::Vectors(mut named) = vectors?.vectors_options? else { return None };
    let vector = named.vectors.remove(DENSE)?;
    match vector.vector {
        Some(vector_output::Vector::Dense(vector)) => Some(vector.data),
        // Servers before 1.17 use the older field.
        #[allow(deprecated, reason = "it is what those servers send")]
        None => Some(vector.data),
        Some(_) => None,
    }
}

pub(super) fn id(id: Option<PointId>) -> Option<Uuid> {
    match id?.point_id_options? {
        PointIdOptions::Uuid(text) => text.parse().ok(),
        PointIdOptions::Num(_) => None,
    }
}

pub(super) fn version(payload: &HashMap<String, Value>) -> Option<i32> {
    i32::try_from(payload.get(VERSION)?.as_integer()?).ok()
}

pub(super) fn by_ids(ids: &[Uuid]) -> PointsSelector {
    let ids = ids.iter().copied().map(PointId::from).collect();
    PointsSelector { points_selector_one_of: Some(PointsSelectorOneOf::Points(PointsIdsList { ids })) }
}

pub(super) fn by_filter(of: &Filter) -> PointsSelector {
    PointsSelector { points_selector_one_of: Some(PointsSelectorOneOf::Filter(filter(of))) }
}

/// `filter` has no constant parts.
pub(super) fn filter(of: &Filter) -> Remote {
    match of {
        Filter::All(parts) => Remote { must: parts.iter().map(condition).collect(), ..Remote::default() },
        Filter::Any(parts) => Remote { should: parts.iter().map(condition).collect(), ..Remote::default() },
        Filter::Not(part) => Remote { must_not: vec![condition(part)], ..Remote::default() },
        other => Remote { must: vec![condition(other)], ..Remote::default() },
    }
}

fn condition(of: &Filter) -> Condition {
    let one_of = match of {
        Filter::All(_) | Filter::Any(_) | Filter::Not(_) => ConditionOneOf::Filter(filter(of)),
        Filter::Missing(key) => ConditionOneOf::IsEmpty(IsEmptyCondition { key: (*key).to_owned() }),
        Filter::Ids(ids) => {
            let has_id = ids.iter().copied().map(PointId::from).collect();
            ConditionOneOf::HasId(HasIdCondition { has_id })
        }
        Filter::In(key, values) => {
            let values = RepeatedStrings { strings: values.clone() };
            matched(key, MatchValue::Keywords(values))
        }
        Filter::Is(key, value) => matched(key, MatchValue::Boolean(*value)),
        Filter::Number(key, from, to) => {
            let ((gt, gte), (lt, lte)) = (sides(*from), sides(*to));
            ConditionOneOf::Field(FieldCondition { range: Some(Range { lt, gt, gte, lte }), ..field(key) })
        }
        Filter::Time(key, from, to) => {
            let ((gt, gte), (lt, lte)) = (sides(from.map(timestamp)), sides(to.map(timestamp)));
            let range = Some(DatetimeRange { lt, gt, gte, lte });
            ConditionOneOf::Field(FieldCondition { datetime_range: range, ..field(key) })
        }
    };
    Condition { condition_one_of: Some(one_of) }
}

fn field(key: &str) -> FieldCondition {
    FieldCondition { key: key.to_owned(), ..FieldCondition::default() }
}

fn matched(key: &str, value: MatchValue) -> ConditionOneOf {
    ConditionOneOf::Field(FieldCondition { r#match: Some(Match { match_value: Some(value) }), ..field(key) })
}

/// The bound as an exclusive and an inclusive one.
fn sides<T>(bound: Bound<T>) -> (Option<T>, Option<T>) {
    match bound {
        Bound::Excluded(value) => (Some(value), None),
        Bound::Included(value) => (None, Some(value)),
        Bound::Unbounded => (None, None),
    }
}

fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp {
        seconds: time.timestamp(),
        nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or_default(),
    }
}
