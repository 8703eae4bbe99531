//! Owns the index on a Qdrant server or cluster: collections `NAME-1`, `NAME-2` and so on, of which the alias `NAME`
//! names the present one.
//!
//! Every call goes through the alias, so that all processes change over in the same moment. Fencing is the server's:
//! each write carries the condition that what it replaces has a lower version, so that of two gateways that write at
//! once, and of a request that is repeated, neither can undo what is newer.

mod collection;
mod convert;
mod retry;

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::future::try_join_all;
use qdrant_client::qdrant::points_update_operation::{Operation, PointStructList};
use qdrant_client::qdrant::{
    CountPoints, DeletePoints, FacetCounts, GetPoints, PointId, PointsUpdateOperation, QueryBatchPoints,
    ScrollPoints, UpdateBatchPoints, facet_value,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::rarity::Rarity;
use super::stages::{Ask, List};
use super::{
    BOOKMARK, BOOKMARK_ID, DELETED_AT, DENSE, DIGEST, FACET_VALUES_MAX, Facet, Filter, Layout, NEVER, Point,
    VERSION, newest, stages,
};
use crate::config::{Quantization, VectorSettings};
use crate::error::{Error, Result};
use collection::Collection;
use retry::{Client, repeatable};

/// Points per write: about a megabyte at 384 dimensions, ten at 3,072; a server takes 32 as it comes.
const BATCH_POINTS_MAX: usize = 256;
/// Ids per look-up and per deletion.
const IDS_MAX: usize = 1_000;

/// An index on a server.
#[derive(Debug)]
pub struct Qdrant {
    client: Client,
    collection: Collection,
    layout: Layout,
    rarity: Rarity,
    quantized: bool,
    /// Whether the collection was found to be there and of this layout, since it was last in doubt.
    ready: AtomicBool,
}

impl Qdrant {
    /// See [`super::Vectors::open`].
    pub async fn open(settings: &VectorSettings, layout: Layout) -> Result<Self> {
        let this = Self::new(settings, Collection::present(settings), layout)?;
        // What refuses now will refuse later; a server that is down will be back.
        if this.client.answers().await? {
            this.ready().await?;
        }
        Ok(this)
    }

    /// See [`super::Vectors::draft`].
    pub async fn draft(settings: &VectorSettings, layout: Layout) -> Result<Self> {
        let present = Self::new(settings, Collection::present(settings), layout)?;
        let collection = present.collection.open_draft(&present.client, &present.layout).await?;
        Ok(Self { collection, ready: AtomicBool::new(true), ..present })
    }

    fn new(settings: &VectorSettings, collection: Collection, layout: Layout) -> Result<Self> {
        let quantized = settings.qdrant_quantization != Quantization::None;
        let client = Client::new(settings)?;
        let rarity = Rarity::default();
        Ok(Self { client, collection, layout, rarity, quantized, ready: AtomicBool::new(false) })
    }

    /// See [`super::Vectors::publish`].
    pub async fn publish(&self) -> Result<()> {
        self.collection.publish(&self.client).await
    }

    /// See [`super::Vectors::refresh`].
    pub async fn refresh(&self) -> Result<bool> {
        self.collection.refresh(&self.client, &self.layout).await
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn rarity(&self) -> &Rarity {
        &self.rarity
    }

    /// See [`super::Vectors::shared_name`].
    pub fn shared_name(&self) -> String {
        format!("{} at {}", self.collection.name(), self.client.uri())
    }

    /// Makes sure that the collection is there and of this layout, before the first call and after every call that
    /// failed.
    async fn ready(&self) -> Result<()> {
        if !self.ready.load(Ordering::Acquire) {
            self.collection.ensure(&self.client, &self.layout).await?;
            self.ready.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn doubted<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|_| self.ready.store(false, Ordering::Release))
    }

    fn name(&self) -> String {
        self.collection.name()
    }

    /// See [`super::Vectors::upsert`].
    pub async fn upsert(&self, points: Vec<Point>) -> Result<()> {
        self.layout.check(&points)?;
        let points: Vec<_> =
            newest(points).into_iter().map(|point| (point.version, convert::point(point))).collect();
        for batch in points.chunks(BATCH_POINTS_MAX) {
            self.write(batch.iter().cloned(), Bound::Excluded).await?;
        }
        Ok(())
    }

    /// See [`super::Vectors::delete`].
    pub async fn delete(&self, versions: &[(Uuid, i32)], at: DateTime<Utc>) -> Result<()> {
        let at = at.to_rfc3339_opts(SecondsFormat::Micros, true);
        let mut highest: HashMap<Uuid, i32> = HashMap::with_capacity(versions.len());
        for (id, version) in versions {
            highest.entry(*id).and_modify(|other| *other = *version.max(other)).or_insert(*version);
        }
        let gone: Vec<_> = highest
            .into_iter()
            .map(|(id, version)| {
                (version, convert::payload_only(id, json!({VERSION: version, DELETED_AT: at})))
            })
            .collect();
        for batch in gone.chunks(IDS_MAX) {
            // A repetition changes nothing but the moment.
            self.write(batch.iter().cloned(), Bound::Included).await?;
        }
        Ok(())
    }

    /// One request: points of one version are one operation, with the condition on what they replace.
    async fn write(
        &self,
        points: impl Iterator<Item = (i32, qdrant_client::qdrant::PointStruct)>,
        below: fn(f64) -> Bound<f64>,
    ) -> Result<()> {
        let mut by_version: HashMap<i32, Vec<_>> = HashMap::new();
        for (version, point) in points {
            by_version.entry(version).or_default().push(point);
        }
        let operation = |(version, points): (i32, Vec<_>)| {
            let older = Filter::Number(VERSION, Bound::Unbounded, below(version.into()));
            let list = PointStructList {
                points,
                update_filter: Some(convert::filter(&older)),
                ..PointStructList::default()
            };
            PointsUpdateOperation { operation: Some(Operation::Upsert(list)) }
        };
        self.update(by_version.into_iter().map(operation).collect()).await
    }

    async fn update(&self, operations: Vec<PointsUpdateOperation>) -> Result<()> {
        self.ready().await?;
        let request = UpdateBatchPoints {
            collection_name: self.name(),
            wait: Some(true),
            operations,
            ..UpdateBatchPoints::default()
        };
        let done = self.client.write(repeatable!(update_points_batch(request))).await;
        self.doubted(done).map(drop)
    }

    /// See [`super::Vectors::forget`].
    pub async fn forget(&self, ids: &[Uuid]) -> Result<()> {
        for ids in ids.chunks(IDS_MAX) {
            self.remove(convert::by_ids(ids)).await?;
        }
        Ok(())
    }

    /// See [`super::Vectors::purge`].
    pub async fn purge(&self, before: DateTime<Utc>) -> Result<()> {
        let deleted = Filter::Time(DELETED_AT, Bound::Unbounded, Bound::Excluded(before));
        self.remove(convert::by_filter(&deleted)).await
    }

    async fn remove(&self, points: qdrant_client::qdrant::PointsSelector) -> Result<()> {
        self.ready().await?;
        let request = DeletePoints {
            collection_name: self.name(),
            wait: Some(true),
            points: Some(points),
            ..DeletePoints::default()
        };
        let done = self.client.write(repeatable!(delete_points(request))).await;
        self.doubted(done).map(drop)
    }

    /// See [`super::Vectors::versions`].
    pub async fn versions(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, i32>> {
        let mut versions = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(IDS_MAX) {
            let points = self.get(ids, &[VERSION, DELETED_AT], false).await?;
            let there = points.into_iter().filter(|point| !point.payload.contains_key(DELETED_AT));
            versions.extend(
                there.filter_map(|point| Some((convert::id(point.id)?, convert::version(&point.payload)?))),
            );
        }
        Ok(versions)
    }

    /// See [`super::Vectors::vectors`].
    pub async fn vectors(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Vec<f32>>> {
        let points = self.get(ids, &[], true).await?;
        Ok(points
            .into_iter()
            .filter_map(|point| Some((convert::id(point.id)?, convert::dense(point.vectors)?)))
            .collect())
    }

    /// See [`super::Vectors::digests`].
    pub async fn digests(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, (String, Vec<f32>)>> {
        let points = self.get(ids, &[DIGEST], true).await?;
        let read = |mut point: qdrant_client::qdrant::RetrievedPoint| {
            let Value::String(digest) = point.payload.remove(DIGEST)?.into() else { return None };
            Some((convert::id(point.id)?, (digest, convert::dense(point.vectors)?)))
        };
        Ok(points.into_iter().filter_map(read).collect())
    }

    async fn get(
        &self,
        ids: &[Uuid],
        payload: &[&str],
        vectors: bool,
    ) -> Result<Vec<qdrant_client::qdrant::RetrievedPoint>> {
        self.ready().await?;
        let request = GetPoints {
            collection_name: self.name(),
            ids: ids.iter().copied().map(PointId::from).collect(),
            with_payload: Some(payload.to_vec().into()),
            with_vectors: vectors.then(|| vec![DENSE].into()),
            ..GetPoints::default()
        };
        let found = self.client.read(repeatable!(get_points(request))).await;
        Ok(self.doubted(found)?.result)
    }

    /// See [`super::Vectors::scroll`].
    pub async fn scroll(&self, after: Option<Uuid>, limit: usize) -> Result<Vec<(Uuid, i32)>> {
        let Some(first) = after.map_or(Some(0), |after| after.as_u128().checked_add(1)) else {
            return Ok(Vec::new());
        };
        self.ready().await?;
        let request = ScrollPoints {
            collection_name: self.name(),
            offset: Some(Uuid::from_u128(first).into()),
            filter: stages::living(None).as_ref().map(convert::filter),
            limit: Some(u32::try_from(limit).unwrap_or(u32::MAX)),
            with_payload: Some(vec![VERSION].into()),
            ..ScrollPoints::default()
        };
        let found = self.client.read(repeatable!(scroll(request))).await;
        let points = self.doubted(found)?.result.into_iter();
        Ok(points
            .filter_map(|point| Some((convert::id(point.id)?, convert::version(&point.payload)?)))
            .collect())
    }

    pub(super) async fn lists(&self, asks: Vec<Ask>) -> Result<Vec<List>> {
        self.ready().await?;
        let request = QueryBatchPoints {
            collection_name: self.name(),
            query_points: asks
                .into_iter()
                .map(|ask| convert::query(ask, self.name(), self.quantized))
                .collect(),
            ..QueryBatchPoints::default()
        };
        let found = self.client.read(repeatable!(query_batch(request))).await;
        Ok(self.doubted(found)?.result.into_iter().map(|list| convert::list(list.result)).collect())
    }

    /// See [`super::Vectors::count`].
    pub async fn count(&self, filter: Filter) -> Result<usize> {
        self.ready().await?;
        let request = CountPoints {
            collection_name: self.name(),
            filter: Some(convert::filter(&filter)),
            exact: Some(true),
            ..CountPoints::default()
        };
        let found = self.client.read(repeatable!(count(request))).await;
        let count = self.doubted(found)?.result.map_or(0, |result| result.count);
        usize::try_from(count).map_err(Error::internal)
    }

    /// See [`super::Vectors::facets`].
    pub async fn facets(&self, keys: &[&'static str], filter: Filter) -> Result<Vec<Facet>> {
        self.ready().await?;
        let filter = convert::filter(&filter);
        let one = |key: &&str| {
            let request = FacetCounts {
                collection_name: self.name(),
                key: (*key).to_owned(),
                filter: Some(filter.clone()),
                limit: Some(FACET_VALUES_MAX as u64),
                exact: Some(true),
                ..FacetCounts::default()
            };
            async move {
                let found = self.client.read(repeatable!(facet(request))).await;
                Ok::<_, Error>(self.doubted(found)?.hits.into_iter().filter_map(facet).collect())
            }
        };
        try_join_all(keys.iter().map(one)).await
    }

    /// See [`super::Vectors::set_bookmark`].
    pub async fn set_bookmark(&self, text: &str) -> Result<()> {
        self.write_bookmark(text, None).await
    }

    /// See [`super::Vectors::move_bookmark`].
    ///
    /// The condition keeps this from a collection that is published at the same moment; one without a bookmark,
    /// where it would not hold, is found out before. A repetition finds its own text.
    pub async fn move_bookmark(&self, from: &str, to: &str) -> Result<bool> {
        if self.bookmark().await?.as_deref() != Some(from) {
            return Ok(false);
        }
        self.write_bookmark(to, Some(&Filter::In(BOOKMARK, vec![from.to_owned()]))).await?;
        Ok(self.bookmark().await?.as_deref() == Some(to))
    }

    async fn write_bookmark(&self, text: &str, only_if: Option<&Filter>) -> Result<()> {
        let points = vec![convert::payload_only(BOOKMARK_ID, json!({BOOKMARK: text, DELETED_AT: NEVER}))];
        let update_filter = only_if.map(convert::filter);
        let list = PointStructList { points, update_filter, ..PointStructList::default() };
        self.update(vec![PointsUpdateOperation { operation: Some(Operation::Upsert(list)) }]).await
    }

    /// See [`super::Vectors::bookmark`].
    pub async fn bookmark(&self) -> Result<Option<String>> {
        let points = self.get(&[BOOKMARK_ID], &[BOOKMARK], false).await?;
        Ok(points.into_iter().find_map(|mut point| match point.payload.remove(BOOKMARK)?.into() {
            Value::String(text) => Some(text),
            _ => None,
        }))
    }

    /// The server's own business.
    pub async fn optimize(&self) -> Result<bool> {
        Ok(false)
    }

    /// The server answers a write when it is in its log.
    pub async fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// See [`super::Vectors::clear`].
    pub async fn clear(&self) -> Result<()> {
        self.remove(convert::by_filter(&Filter::Not(Box::new(Filter::Missing(VERSION))))).await?;
        self.forget(&[BOOKMARK_ID]).await
    }
}

fn facet(hit: qdrant_client::qdrant::FacetHit) -> Option<(String, usize)> {
    let value = match hit.value?.variant? {
        facet_value::Variant::StringValue(text) => text,
        facet_value::Variant::IntegerValue(number) => number.to_string(),
        facet_value::Variant::BoolValue(flag) => flag.to_string(),
    };
    Some((value, usize::try_from(hit.count).ok()?))
}
