//! Collections and aliases over Qdrant's engine.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

use qdrant_client::qdrant::alias_operations::Action;
use qdrant_client::qdrant::payload_index_params::IndexParams;
use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::points_update_operation::Operation;
use qdrant_client::qdrant::with_payload_selector::SelectorOptions;
use qdrant_client::qdrant::with_vectors_selector::SelectorOptions as VectorOptions;
use qdrant_client::qdrant::{self as api, facet_value, query, vectors_config};
use qdrant_edge::{
    AcornSearchParams, ConditionalInsertOperation, CountRequest, CreateIndex, Distance, EdgeConfig,
    EdgeShard, EdgeSparseVectorParams, EdgeVectorParams, FacetRequest, FacetValue, FieldIndexOperations,
    NamedQuery, OperationError, PayloadFieldSchema, PayloadSchemaParams, PayloadSchemaType,
    PayloadSelectorInclude, PointInsertOperations, PointOperations, QueryEnum, Record, ScrollRequest,
    SearchParams, SearchRequest, UpdateOperation, UuidIndexParams, WithPayloadInterface, WithVector,
};
use tempfile::TempDir;
use tonic::Status;
use uuid::Uuid;

use super::words;

#[derive(Default)]
pub(super) struct Engine {
    collections: Mutex<BTreeMap<String, Collection>>,
    aliases: Mutex<HashMap<String, String>>,
}

struct Collection {
    shard: EdgeShard,
    made: api::CreateCollection,
    _dir: TempDir,
}

fn failed(error: OperationError) -> Status {
    Status::invalid_argument(error.to_string())
}

const DONE: api::CollectionOperationResponse = api::CollectionOperationResponse { result: true, time: 0.0 };

impl Engine {
    pub(super) fn names(&self) -> Vec<String> {
        self.collections().keys().cloned().collect()
    }

    fn collections(&self) -> MutexGuard<'_, BTreeMap<String, Collection>> {
        self.collections.lock().unwrap()
    }

    /// Runs a call on the collection that has the name or the alias.
    fn on<T>(&self, name: &str, call: impl FnOnce(&Collection) -> Result<T, Status>) -> Result<T, Status> {
        let name = self.aliases.lock().unwrap().get(name).cloned().unwrap_or_else(|| name.to_owned());
        let collections = self.collections();
        call(
            collections
                .get(&name)
                .ok_or_else(|| Status::not_found(format!("Collection `{name}` doesn't exist!")))?,
        )
    }

    pub(super) fn create(
        &self,
        made: api::CreateCollection,
    ) -> Result<api::CollectionOperationResponse, Status> {
        let mut collections = self.collections();
        if collections.contains_key(&made.collection_name) {
            return Err(Status::already_exists(made.collection_name));
        }
        let mut config = EdgeConfig::builder();
        let Some(vectors_config::Config::ParamsMap(dense)) = made.vectors_config.clone().unwrap().config
        else {
            return Err(Status::unimplemented("one vector without a name"));
        };
        for (name, params) in dense.map {
            assert_eq!(params.distance(), api::Distance::Cosine);
            let size = params.size.try_into().unwrap();
            config = config.vector(name, EdgeVectorParams::builder(size, Distance::Cosine).build());
        }
        for (name, params) in made.sparse_vectors_config.clone().unwrap().map {
            assert_eq!(params.modifier(), api::Modifier::None);
            config = config.sparse_vector(name, EdgeSparseVectorParams::builder().build());
        }
        let dir = tempfile::tempdir().unwrap();
        let shard = EdgeShard::new(dir.path(), config.build()).map_err(failed)?;
        collections.insert(made.collection_name.clone(), Collection { shard, made, _dir: dir });
        Ok(DONE)
    }

    pub(super) fn delete_collection(
        &self,
        request: &api::DeleteCollection,
    ) -> Result<api::CollectionOperationResponse, Status> {
        let deleted = self.collections().remove(&request.collection_name);
        self.aliases.lock().unwrap().retain(|_, target| *target != request.collection_name);
        Ok(api::CollectionOperationResponse { result: deleted.is_some(), time: 0.0 })
    }

    pub(super) fn info(
        &self,
        request: &api::GetCollectionInfoRequest,
    ) -> Result<api::GetCollectionInfoResponse, Status> {
        self.on(&request.collection_name, |collection| {
            let metadata = collection.made.metadata.clone();
            let config = api::CollectionConfig { metadata, ..api::CollectionConfig::default() };
            let info = api::CollectionInfo { config: Some(config), ..api::CollectionInfo::default() };
            Ok(api::GetCollectionInfoResponse { result: Some(info), time: 0.0 })
        })
    }

    pub(super) fn exists(&self, request: &api::CollectionExistsRequest) -> api::CollectionExistsResponse {
        let exists = self.on(&request.collection_name, |_| Ok(())).is_ok();
        let result = Some(api::CollectionExists { exists });
        api::CollectionExistsResponse { result, time: 0.0 }
    }

    pub(super) fn list(&self) -> api::ListCollectionsResponse {
        let collections = self.names().into_iter().map(|name| api::CollectionDescription { name }).collect();
        api::ListCollectionsResponse { collections, time: 0.0 }
    }

    /// As the server's table of contents does: a name that is taken is refused, an alias that is taken is moved.
    pub(super) fn update_aliases(
        &self,
        request: api::ChangeAliases,
    ) -> Result<api::CollectionOperationResponse, Status> {
        for action in request.actions {
            let Some(Action::CreateAlias(api::CreateAlias { collection_name, alias_name })) = action.action
            else {
                return Err(Status::unimplemented("another action than the creation of an alias"));
            };
            if !self.collections().contains_key(&collection_name) {
                return Err(Status::not_found(collection_name));
            }
            if self.collections().contains_key(&alias_name) {
                return Err(Status::invalid_argument(format!("Collection {alias_name} already exists!")));
            }
            self.aliases.lock().unwrap().insert(alias_name, collection_name);
        }
        Ok(DONE)
    }

    pub(super) fn list_aliases(&self) -> api::ListAliasesResponse {
        let aliases = self.aliases.lock().unwrap();
        let described = aliases.iter().map(|(alias_name, collection_name)| api::AliasDescription {
            alias_name: alias_name.clone(),
            collection_name: collection_name.clone(),
        });
        api::ListAliasesResponse { aliases: described.collect(), time: 0.0 }
    }

    pub(super) fn create_field_index(
        &self,
        request: api::CreateFieldIndexCollection,
    ) -> Result<api::PointsOperationResponse, Status> {
        let schema: PayloadFieldSchema = match request.field_type() {
            api::FieldType::Keyword => PayloadSchemaType::Keyword.into(),
            api::FieldType::Integer => PayloadSchemaType::Integer.into(),
            api::FieldType::Float => PayloadSchemaType::Float.into(),
            api::FieldType::Bool => PayloadSchemaType::Bool.into(),
            api::FieldType::Datetime => PayloadSchemaType::Datetime.into(),
            api::FieldType::Uuid => match request.field_index_params.and_then(|params| params.index_params) {
                Some(IndexParams::UuidIndexParams(params)) => {
                    PayloadFieldSchema::FieldParams(PayloadSchemaParams::Uuid(UuidIndexParams {
                        is_tenant: params.is_tenant,
                        ..Default::default()
                    }))
                }
                _ => PayloadSchemaType::Uuid.into(),
            },
            other => return Err(Status::unimplemented(format!("{other:?}"))),
        };
        let index = CreateIndex { field_name: words::path(&request.field_name)?, field_schema: Some(schema) };
        let operation = UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(index));
        self.on(&request.collection_name, |collection| collection.shard.update(operation).map_err(failed))?;
        Ok(api::PointsOperationResponse::default())
    }

    pub(super) fn update_batch(
        &self,
        request: api::UpdateBatchPoints,
    ) -> Result<api::UpdateBatchResponse, Status> {
        assert_eq!(request.wait, Some(true), "an answer must mean that it is written");
        self.on(&request.collection_name, |collection| {
            for operation in request.operations {
                let Some(Operation::Upsert(list)) = operation.operation else {
                    return Err(Status::unimplemented("another operation than an upsert"));
                };
                let points = list.points.into_iter().map(words::point).collect::<Result<_, _>>()?;
                let points_op = PointInsertOperations::PointsList(points);
                let operation = match list.update_filter {
                    None => PointOperations::UpsertPoints(points_op),
                    Some(condition) => PointOperations::UpsertPointsConditional(ConditionalInsertOperation {
                        points_op,
                        condition: words::filter(condition)?,
                        update_mode: None,
                    }),
                };
                collection.shard.update(UpdateOperation::PointOperation(operation)).map_err(failed)?;
            }
            Ok(api::UpdateBatchResponse::default())
        })
    }

    pub(super) fn delete(&self, request: api::DeletePoints) -> Result<api::PointsOperationResponse, Status> {
        let operation = match request.points.and_then(|points| points.points_selector_one_of) {
            Some(PointsSelectorOneOf::Points(points)) => {
                PointOperations::DeletePoints { ids: points.ids.into_iter().map(words::id).collect() }
            }
            Some(PointsSelectorOneOf::Filter(filter)) => {
                PointOperations::DeletePointsByFilter(words::filter(filter)?)
            }
            None => return Err(Status::invalid_argument("which points?")),
        };
        let operation = UpdateOperation::PointOperation(operation);
        self.on(&request.collection_name, |collection| collection.shard.update(operation).map_err(failed))?;
        Ok(api::PointsOperationResponse::default())
    }

    pub(super) fn get(&self, request: api::GetPoints) -> Result<api::GetResponse, Status> {
        let ids: Vec<_> = request.ids.into_iter().map(words::id).collect();
        let (payload, vectors) = (payload(request.with_payload)?, vectors(request.with_vectors));
        self.on(&request.collection_name, |collection| {
            let records = collection.shard.retrieve(&ids, Some(payload), Some(vectors)).map_err(failed)?;
            let result = records.into_iter().map(retrieved).collect();
            Ok(api::GetResponse { result, ..api::GetResponse::default() })
        })
    }

    pub(super) fn scroll(&self, request: api::ScrollPoints) -> Result<api::ScrollResponse, Status> {
        let scroll = ScrollRequest {
            offset: request.offset.map(words::id),
            limit: request.limit.map(|limit| limit.try_into().unwrap()),
            filter: request.filter.map(words::filter).transpose()?,
            with_payload: Some(payload(request.with_payload)?),
            with_vector: vectors(request.with_vectors),
            order_by: None,
        };
        self.on(&request.collection_name, |collection| {
            let (records, next) = collection.shard.scroll(scroll).map_err(failed)?;
            let result = records.into_iter().map(retrieved).collect();
            let next_page_offset = next.map(words::id_back);
            Ok(api::ScrollResponse { result, next_page_offset, ..api::ScrollResponse::default() })
        })
    }

    pub(super) fn count(&self, request: api::CountPoints) -> Result<api::CountResponse, Status> {
        let filter = request.filter.map(words::filter).transpose()?;
        let count = CountRequest { filter, exact: request.exact.unwrap_or(true) };
        self.on(&request.collection_name, |collection| {
            let count = collection.shard.count(count).map_err(failed)? as u64;
            Ok(api::CountResponse {
                result: Some(api::CountResult { count }),
                ..api::CountResponse::default()
            })
        })
    }

    pub(super) fn facet(&self, request: api::FacetCounts) -> Result<api::FacetResponse, Status> {
        let facet = FacetRequest {
            key: words::path(&request.key)?,
            limit: request.limit.unwrap_or(10).try_into().unwrap(),
            filter: request.filter.map(words::filter).transpose()?,
            exact: request.exact.unwrap_or(false),
        };
        let found =
            self.on(&request.collection_name, |collection| collection.shard.facet(facet).map_err(failed))?;
        let hit = |value: FacetValue, count: usize| {
            let variant = match value {
                FacetValue::Keyword(text) => facet_value::Variant::StringValue(text),
                FacetValue::Int(number) => facet_value::Variant::IntegerValue(number),
                FacetValue::Uuid(id) => facet_value::Variant::StringValue(Uuid::from_u128(id).to_string()),
                FacetValue::Bool(flag) => facet_value::Variant::BoolValue(flag),
            };
            api::FacetHit { value: Some(api::FacetValue { variant: Some(variant) }), count: count as u64 }
        };
        let hits = found.hits.into_iter().map(|found| hit(found.value, found.count)).collect();
        Ok(api::FacetResponse { hits, ..api::FacetResponse::default() })
    }

    pub(super) fn query_batch(
        &self,
        request: api::QueryBatchPoints,
    ) -> Result<api::QueryBatchResponse, Status> {
        let result =
            request.query_points.into_iter().map(|query| self.query(query)).collect::<Result<_, _>>()?;
        Ok(api::QueryBatchResponse { result, ..api::QueryBatchResponse::default() })
    }

    fn query(&self, request: api::QueryPoints) -> Result<api::BatchResult, Status> {
        let Some(query::Variant::Nearest(near)) = request.query.and_then(|query| query.variant) else {
            return Err(Status::unimplemented("another query than the nearest"));
        };
        let params = request.params.unwrap_or_default();
        let search = SearchRequest {
            query: QueryEnum::Nearest(NamedQuery::new(words::near(Some(near))?, request.using.unwrap())),
            filter: request.filter.map(words::filter).transpose()?,
            params: Some(SearchParams {
                hnsw_ef: params.hnsw_ef.map(|candidates| candidates.try_into().unwrap()),
                exact: params.exact.unwrap_or(false),
                acorn: params.acorn.map(|acorn| AcornSearchParams {
                    enable: acorn.enable.unwrap_or(false),
                    max_selectivity: None,
                }),
                ..SearchParams::default()
            }),
            limit: request.limit.unwrap_or(10).try_into().unwrap(),
            offset: 0,
            with_payload: Some(payload(request.with_payload)?),
            with_vector: Some(vectors(request.with_vectors)),
            score_threshold: None,
        };
        let points =
            self.on(&request.collection_name, |collection| collection.shard.search(search).map_err(failed))?;
        let scored = |point: qdrant_edge::ScoredPoint| api::ScoredPoint {
            id: Some(words::id_back(point.id)),
            payload: words::payload_back(point.payload),
            score: point.score,
            vectors: words::vectors_back(point.vector),
            ..api::ScoredPoint::default()
        };
        Ok(api::BatchResult { result: points.into_iter().map(scored).collect() })
    }
}

fn payload(selector: Option<api::WithPayloadSelector>) -> Result<WithPayloadInterface, Status> {
    Ok(match selector.and_then(|selector| selector.selector_options) {
        Some(SelectorOptions::Enable(enable)) => enable.into(),
        Some(SelectorOptions::Include(only)) => {
            let keys = only.fields.iter().map(|key| words::path(key)).collect::<Result<_, _>>()?;
            PayloadSelectorInclude::new(keys).into()
        }
        Some(SelectorOptions::Exclude(_)) => return Err(Status::unimplemented("exclude")),
        None => false.into(),
    })
}

fn vectors(selector: Option<api::WithVectorsSelector>) -> WithVector {
    match selector.and_then(|selector| selector.selector_options) {
        Some(VectorOptions::Enable(enable)) => WithVector::Bool(enable),
        Some(VectorOptions::Include(only)) => WithVector::Selector(only.names),
        None => WithVector::Bool(false),
    }
}

fn retrieved(record: Record) -> api::RetrievedPoint {
    api::RetrievedPoint {
        id: Some(words::id_back(record.id)),
        payload: words::payload_back(record.payload),
        vectors: words::vectors_back(record.vector),
        ..api::RetrievedPoint::default()
    }
}
