//! Owns the words of the engine: how points and questions are said to it. Everything here blocks.

use std::collections::HashMap;
use std::ops::Bound;

use chrono::{DateTime, SecondsFormat, Utc};
use qdrant_edge::{
    AcornSearchParams, CountRequest, CreateIndex, EdgeShard, FacetRequest, FacetValue, FieldIndexOperations,
    NamedQuery, PayloadFieldSchema, PayloadSchemaParams, PayloadSchemaType, PayloadSelectorInclude, PointId,
    PointInsertOperations, PointOperations, PointStruct, PointStructPersisted, QueryEnum, Record,
    ScrollRequest, SearchParams, SearchRequest, SparseVector, UpdateOperation, UuidIndexParams, Vector,
    VectorInternal, VectorStructInternal, Vectors, WithVector,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::stages::{Ask, List, Near};
use super::super::{
    BM25, BOOKMARK, BOOKMARK_ID, DELETED_AT, DENSE, DIGEST, FACET_VALUES_MAX, Facet, Filter,
    GRAPH_CANDIDATES, Hit, Indexed, Kind, Layout, NEVER, Point, VERSION, newest, stages,
};
use super::filter::{into_engine, path};
use super::unavailable;
use crate::error::Result;

/// Ids per lookup and per deletion.
const IDS_MAX: usize = 1_000;

/// Makes filters fast. Segments that have an index already leave it as it is, unless it is to be made anew from the
/// points.
pub(super) fn ensure_payload_indexes(shard: &EdgeShard, layout: &Layout, anew: bool) -> Result<()> {
    layout.indexed().try_for_each(|(key, indexed)| {
        if anew {
            let operation =
                UpdateOperation::FieldIndexOperation(FieldIndexOperations::DeleteIndex(path(key)?));
            shard.update(operation).map_err(unavailable)?;
        }
        let schema = match indexed {
            Indexed::Integer => PayloadSchemaType::Integer.into(),
            Indexed::Of(Kind::Tenant) => {
                PayloadFieldSchema::FieldParams(PayloadSchemaParams::Uuid(UuidIndexParams {
                    is_tenant: Some(true),
                    ..UuidIndexParams::default()
                }))
            }
            Indexed::Of(Kind::Id) => PayloadSchemaType::Uuid.into(),
            Indexed::Of(Kind::Keyword) => PayloadSchemaType::Keyword.into(),
            Indexed::Of(Kind::Number) => PayloadSchemaType::Float.into(),
            Indexed::Of(Kind::Flag) => PayloadSchemaType::Bool.into(),
            Indexed::Of(Kind::Time) => PayloadSchemaType::Datetime.into(),
        };
        let index = CreateIndex { field_name: path(key)?, field_schema: Some(schema) };
        let operation = UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(index));
        shard.update(operation).map_err(unavailable)
    })
}

/// Writes those points of which `shard` has no version or a lower one, `batch` at a time.
pub(super) fn upsert(shard: &EdgeShard, points: Vec<Point>, batch: usize) -> Result<()> {
    let points = newest(points);
    let ids: Vec<Uuid> = points.iter().map(|point| point.id).collect();
    let kept = kept(shard, &ids)?;
    let newer = |point: &Point| kept.get(&point.id).is_none_or(|kept| kept.version < point.version);
    insert(shard, points.into_iter().filter(newer).map(point), batch)
}

/// Leaves an id, a version and a moment of each point that has no higher version.
pub(super) fn delete(
    shard: &EdgeShard,
    versions: &[(Uuid, i32)],
    at: DateTime<Utc>,
    batch: usize,
) -> Result<()> {
    let ids: Vec<Uuid> = versions.iter().map(|(id, _)| *id).collect();
    let kept = kept(shard, &ids)?;
    let mut highest: HashMap<Uuid, i32> = HashMap::with_capacity(versions.len());
    for (id, version) in versions {
        if kept.get(id).is_none_or(|kept| kept.version < *version || (kept.version == *version && kept.there))
        {
            highest.entry(*id).and_modify(|other| *other = *version.max(other)).or_insert(*version);
        }
    }
    let at = at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let gone =
        highest.into_iter().map(|(id, version)| payload_only(id, json!({VERSION: version, DELETED_AT: at})));
    insert(shard, gone, batch)
}

pub(super) fn forget(shard: &EdgeShard, ids: &[Uuid]) -> Result<()> {
    ids.chunks(IDS_MAX).try_for_each(|ids| {
        let ids = ids.iter().copied().map(PointId::Uuid).collect();
        update(shard, PointOperations::DeletePoints { ids })
    })
}

pub(super) fn purge(shard: &EdgeShard, before: DateTime<Utc>) -> Result<()> {
    let deleted = Filter::Time(DELETED_AT, Bound::Unbounded, Bound::Excluded(before));
    update(shard, PointOperations::DeletePointsByFilter(into_engine(&deleted)?))
}

pub(super) fn versions(shard: &EdgeShard, ids: &[Uuid]) -> Result<HashMap<Uuid, i32>> {
    let kept = kept(shard, ids)?.into_iter().filter(|(_, kept)| kept.there);
    Ok(kept.map(|(id, kept)| (id, kept.version)).collect())
}

pub(super) fn scroll(shard: &EdgeShard, after: Option<Uuid>, limit: usize) -> Result<Vec<(Uuid, i32)>> {
    let Some(first) = after.map_or(Some(0), |after| after.as_u128().checked_add(1)) else {
        return Ok(Vec::new());
    };
    let request = ScrollRequest {
        offset: Some(PointId::Uuid(Uuid::from_u128(first))),
        limit: Some(limit),
        filter: stages::living(None).as_ref().map(into_engine).transpose()?,
        with_payload: Some(PayloadSelectorInclude::new(vec![path(VERSION)?]).into()),
        with_vector: false.into(),
        order_by: None,
    };
    let (records, _) = shard.scroll(request).map_err(unavailable)?;
    Ok(records.into_iter().filter_map(|record| Some((uuid(record.id)?, version(&record)?))).collect())
}

pub(super) fn vectors(shard: &EdgeShard, ids: &[Uuid]) -> Result<HashMap<Uuid, Vec<f32>>> {
    let ids: Vec<PointId> = ids.iter().copied().map(PointId::Uuid).collect();
    let only = WithVector::Selector(vec![DENSE.to_owned()]);
    let records = shard.retrieve(&ids, Some(false.into()), Some(only)).map_err(unavailable)?;
    Ok(records.into_iter().filter_map(|record| Some((uuid(record.id)?, dense(record.vector)?))).collect())
}

pub(super) fn digests(shard: &EdgeShard, ids: &[Uuid]) -> Result<HashMap<Uuid, (String, Vec<f32>)>> {
    let ids: Vec<PointId> = ids.iter().copied().map(PointId::Uuid).collect();
    let payload = PayloadSelectorInclude::new(vec![path(DIGEST)?]);
    let only = WithVector::Selector(vec![DENSE.to_owned()]);
    let records = shard.retrieve(&ids, Some(payload.into()), Some(only)).map_err(unavailable)?;
    let read = |record: Record| {
        let digest = record.payload?.0.get(DIGEST)?.as_str()?.to_owned();
        Some((uuid(record.id)?, (digest, dense(record.vector)?)))
    };
    Ok(records.into_iter().filter_map(read).collect())
}

/// The best hits of one list; among equal scores the engine chooses.
pub(super) fn list(shard: &EdgeShard, ask: Ask) -> Result<List> {
    let query = match ask.near {
        Near::Dense(vector) => NamedQuery::new(VectorInternal::Dense(vector), DENSE),
        Near::Sparse(words) => {
            let vector = SparseVector { indices: words.indices, values: words.values };
            NamedQuery::new(VectorInternal::Sparse(vector), BM25)
        }
    };
    // Without it the graph found 0.986 of the neighbours among the third of 20,000 that a filter let through.
    let filtered = ask.filter.is_some();
    let with_vector =
        if ask.with_vectors { WithVector::Selector(vec![DENSE.to_owned()]) } else { WithVector::Bool(false) };
    let request = SearchRequest {
        query: QueryEnum::Nearest(query),
        filter: ask.filter.as_ref().map(into_engine).transpose()?,
        params: Some(SearchParams {
            hnsw_ef: Some(GRAPH_CANDIDATES),
            exact: ask.exact,
            acorn: filtered.then_some(AcornSearchParams { enable: true, max_selectivity: None }),
            ..SearchParams::default()
        }),
        limit: ask.limit,
        offset: 0,
        with_payload: Some(false.into()),
        with_vector: Some(with_vector),
        score_threshold: None,
    };
    let points = shard.search(request).map_err(unavailable)?;
    let hit = |point: qdrant_edge::ScoredPoint| {
        Some((Hit { id: uuid(point.id)?, score: point.score }, dense(point.vector)))
    };
    Ok(points.into_iter().filter_map(hit).collect())
}

pub(super) fn count(shard: &EdgeShard, filter: &Filter) -> Result<usize> {
    let filter = Some(into_engine(filter)?);
    shard.count(CountRequest { filter, exact: true }).map_err(unavailable)
}

pub(super) fn facet(shard: &EdgeShard, key: &str, filter: &Filter) -> Result<Facet> {
    let filter = Some(into_engine(filter)?);
    let request = FacetRequest { key: path(key)?, limit: FACET_VALUES_MAX, filter, exact: true };
    let found = shard.facet(request).map_err(unavailable)?;
    let text = |value| match value {
        FacetValue::Keyword(text) => text,
        FacetValue::Int(number) => number.to_string(),
        FacetValue::Uuid(id) => Uuid::from_u128(id).to_string(),
        FacetValue::Bool(flag) => flag.to_string(),
    };
    Ok(found.hits.into_iter().map(|hit| (text(hit.value), hit.count)).collect())
}

pub(super) fn set_bookmark(shard: &EdgeShard, text: String) -> Result<()> {
    let point = payload_only(BOOKMARK_ID, json!({BOOKMARK: text, DELETED_AT: NEVER}));
    insert(shard, std::iter::once(point), 1)
}

pub(super) fn bookmark(shard: &EdgeShard) -> Result<Option<String>> {
    let ids = [PointId::Uuid(BOOKMARK_ID)];
    let records = shard.retrieve(&ids, Some(true.into()), Some(false.into())).map_err(unavailable)?;
    let text = |record: Record| Some(record.payload?.0.get(BOOKMARK)?.as_str()?.to_owned());
    Ok(records.into_iter().find_map(text))
}

/// What the index keeps of a row: it is there, or it was deleted at that version.
struct Kept {
    version: i32,
    there: bool,
}

fn kept(shard: &EdgeShard, ids: &[Uuid]) -> Result<HashMap<Uuid, Kept>> {
    let mut kept = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(IDS_MAX) {
        let ids: Vec<PointId> = ids.iter().copied().map(PointId::Uuid).collect();
        let only = PayloadSelectorInclude::new(vec![path(VERSION)?, path(DELETED_AT)?]);
        let records = shard.retrieve(&ids, Some(only.into()), Some(false.into())).map_err(unavailable)?;
        kept.extend(records.into_iter().filter_map(|record| {
            let there = !record.payload.as_ref()?.0.contains_key(DELETED_AT);
            Some((uuid(record.id)?, Kept { version: version(&record)?, there }))
        }));
    }
    Ok(kept)
}

/// A record without a version is none of ours, and any write is newer.
fn version(record: &Record) -> Option<i32> {
    i32::try_from(record.payload.as_ref()?.0.get(VERSION)?.as_i64()?).ok()
}

fn insert(
    shard: &EdgeShard,
    mut points: impl Iterator<Item = PointStructPersisted>,
    batch: usize,
) -> Result<()> {
    loop {
        let next: Vec<_> = points.by_ref().take(batch).collect();
        if next.is_empty() {
            return Ok(());
        }
        update(shard, PointOperations::UpsertPoints(PointInsertOperations::PointsList(next)))?;
    }
}

fn update(shard: &EdgeShard, operation: PointOperations) -> Result<()> {
    shard.update(UpdateOperation::PointOperation(operation)).map_err(unavailable)
}

fn point(point: Point) -> PointStructPersisted {
    let Point { id, version, dense, sparse, mut payload } = point;
    payload.insert(VERSION.to_owned(), version.into());
    let mut vectors = vec![(DENSE, Vector::from(dense))];
    if !sparse.indices.is_empty() {
        vectors.push((BM25, SparseVector { indices: sparse.indices, values: sparse.values }.into()));
    }
    PointStruct::new(PointId::Uuid(id), Vectors::from(vectors), Value::Object(payload)).into()
}

fn payload_only(id: Uuid, payload: Value) -> PointStructPersisted {
    let none: Vec<(&str, Vector)> = Vec::new();
    PointStruct::new(PointId::Uuid(id), Vectors::from(none), payload).into()
}

fn dense(vectors: Option<VectorStructInternal>) -> Option<Vec<f32>> {
    let VectorStructInternal::Named(mut vectors) = vectors? else { return None };
    match vectors.remove(DENSE)? {
        VectorInternal::Dense(vector) => Some(vector),
        VectorInternal::Sparse(_) | VectorInternal::MultiDense(_) => None,
    }
}

fn uuid(id: PointId) -> Option<Uuid> {
    match id {
        PointId::Uuid(id) => Some(id),
        PointId::NumId(_) => None,
    }
}
