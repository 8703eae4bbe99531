//! Owns the words of the engine: how points, filters and questions are said to it. Everything here blocks.

use std::collections::HashMap;

use qdrant_edge::{
    AnyVariants, Condition, CountRequest, CreateIndex, EdgeShard, FieldCondition, FieldIndexOperations,
    Filter, JsonPath, Match, NamedQuery, PayloadFieldSchema, PayloadSchemaType, PayloadSelectorInclude,
    PointId, PointInsertOperations, PointOperations, PointStruct, PointStructPersisted, QueryEnum, Record,
    SearchParams, SearchRequest, UpdateOperation, VectorInternal, Vectors,
};
use serde_json::Value;
use uuid::Uuid;

use super::super::{Hit, PROJECT_ID, Point, VERSION};
use super::unavailable;
use crate::error::{Error, Result};

/// The vector of the embedder.
pub(super) const DENSE: &str = "dense";
/// The vector of the words.
pub(super) const BM25: &str = "bm25";
/// Ids per lookup and per deletion.
const IDS_MAX: usize = 1_000;
/// How many near points the engine keeps in mind while it walks its graph, which it builds beyond about 6,700 vectors.
/// Its own default, 100, missed 2 of 500 true neighbours among 10,000 points; this missed none, in up to twice the time.
const GRAPH_CANDIDATES: usize = 256;
/// How far beyond the end of a page equal scores are followed, so that pages do not overlap.
const TIES_MAX: usize = 1_024;

/// Makes the filter by project fast. Segments that have the index already leave it as it is.
pub(super) fn ensure_payload_index(shard: &EdgeShard) -> Result<()> {
    let field_schema = Some(PayloadFieldSchema::FieldType(PayloadSchemaType::Uuid));
    let index =
        FieldIndexOperations::CreateIndex(CreateIndex { field_name: path(PROJECT_ID)?, field_schema });
    shard.update(UpdateOperation::FieldIndexOperation(index)).map_err(unavailable)
}

/// Writes those points of which `shard` has no version or a lower one, `batch` at a time.
pub(super) fn upsert(shard: &EdgeShard, points: Vec<Point>, batch: usize) -> Result<usize> {
    let mut newest: HashMap<Uuid, Point> = HashMap::with_capacity(points.len());
    for point in points {
        if newest.get(&point.id).is_none_or(|other| other.version < point.version) {
            newest.insert(point.id, point);
        }
    }
    let ids: Vec<Uuid> = newest.keys().copied().collect();
    let indexed = versions(shard, &ids)?;
    newest.retain(|id, point| indexed.get(id).is_none_or(|version| *version < point.version));
    let count = newest.len();
    let mut points = newest.into_values();
    loop {
        let next: Vec<PointStructPersisted> = points.by_ref().take(batch).map(into_engine).collect();
        if next.is_empty() {
            return Ok(count);
        }
        let operation = PointOperations::UpsertPoints(PointInsertOperations::PointsList(next));
        shard.update(UpdateOperation::PointOperation(operation)).map_err(unavailable)?;
    }
}

pub(super) fn delete(shard: &EdgeShard, ids: &[Uuid]) -> Result<()> {
    ids.chunks(IDS_MAX).try_for_each(|ids| {
        let ids = ids.iter().copied().map(PointId::Uuid).collect();
        shard
            .update(UpdateOperation::PointOperation(PointOperations::DeletePoints { ids }))
            .map_err(unavailable)
    })
}

pub(super) fn versions(shard: &EdgeShard, ids: &[Uuid]) -> Result<HashMap<Uuid, i32>> {
    let mut versions = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(IDS_MAX) {
        let ids: Vec<PointId> = ids.iter().copied().map(PointId::Uuid).collect();
        let only = PayloadSelectorInclude::new(vec![path(VERSION)?]);
        let records = shard.retrieve(&ids, Some(only.into()), Some(false.into())).map_err(unavailable)?;
        versions.extend(records.into_iter().filter_map(version));
    }
    Ok(versions)
}

/// A record without a version is none of ours, and any write is newer.
fn version(record: Record) -> Option<(Uuid, i32)> {
    let version = record.payload?.0.get(VERSION)?.as_i64()?;
    Some((uuid(record.id)?, i32::try_from(version).ok()?))
}

/// The best `end` hits, at least one.
///
/// Equal scores are common, for equal texts have equal vectors, and the engine cuts among them as it likes. So it
/// is asked for more until a lower score ends the answer, and ids decide which of the equal come first.
pub(super) fn nearest(
    shard: &EdgeShard,
    vector: &[f32],
    projects: Option<&[Uuid]>,
    end: usize,
) -> Result<Vec<Hit>> {
    let mut beyond = 1;
    loop {
        let mut hits = ask(shard, vector, projects, end + beyond)?;
        let score = |index: usize| hits.get(index).map(|hit| hit.score);
        let cut_among_equals = hits.len() == end + beyond && score(end - 1) == score(end + beyond - 1);
        if cut_among_equals && beyond < TIES_MAX {
            beyond *= 4;
            continue;
        }
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
        hits.truncate(end);
        return Ok(hits);
    }
}

fn ask(shard: &EdgeShard, vector: &[f32], projects: Option<&[Uuid]>, limit: usize) -> Result<Vec<Hit>> {
    let request = SearchRequest {
        query: QueryEnum::Nearest(NamedQuery::new(VectorInternal::Dense(vector.to_vec()), DENSE)),
        filter: projects.map(in_projects).transpose()?,
        params: Some(SearchParams { hnsw_ef: Some(GRAPH_CANDIDATES), ..SearchParams::default() }),
        limit,
        offset: 0,
        with_payload: Some(false.into()),
        with_vector: Some(false.into()),
        score_threshold: None,
    };
    let points = shard.search(request).map_err(unavailable)?;
    Ok(points.into_iter().filter_map(|point| Some(Hit { id: uuid(point.id)?, score: point.score })).collect())
}

pub(super) fn count(shard: &EdgeShard) -> Result<usize> {
    shard.count(CountRequest { filter: None, exact: true }).map_err(unavailable)
}

fn in_projects(projects: &[Uuid]) -> Result<Filter> {
    let any = AnyVariants::Strings(projects.iter().map(Uuid::to_string).collect());
    let condition = FieldCondition::new_match(path(PROJECT_ID)?, Match::new_any(any));
    Ok(Filter::new_must(Condition::Field(condition)))
}

fn into_engine(point: Point) -> PointStructPersisted {
    let Point { id, version, vector, project_id, mut payload } = point;
    payload.insert(VERSION.to_owned(), version.into());
    payload.insert(PROJECT_ID.to_owned(), project_id.to_string().into());
    PointStruct::new(PointId::Uuid(id), Vectors::new_named([(DENSE, vector)]), Value::Object(payload)).into()
}

fn uuid(id: PointId) -> Option<Uuid> {
    match id {
        PointId::Uuid(id) => Some(id),
        PointId::NumId(_) => None,
    }
}

fn path(name: &str) -> Result<JsonPath> {
    name.parse().map_err(|()| Error::internal(format!("{name} is no path in a payload")))
}
