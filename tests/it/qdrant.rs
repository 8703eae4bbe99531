//! A Qdrant server for the tests: the real protocol, the services that the client library generates, and Qdrant's own
//! engine behind them. What the gateway never calls answers UNIMPLEMENTED. It can be stopped, hung and made to fail.

mod engine;
mod words;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use qdrant_client::qdrant as api;
use qdrant_client::qdrant::collections_server::{Collections, CollectionsServer};
use qdrant_client::qdrant::points_server::{Points, PointsServer};
use qdrant_client::qdrant::qdrant_server::{Qdrant, QdrantServer};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use engine::Engine;

/// What clients must send.
pub(crate) const API_KEY: &str = "the key of the tests' Qdrant server";

/// A server that may run or not; what it holds stays.
pub(crate) struct TestQdrant {
    address: SocketAddr,
    state: Arc<State>,
    /// Its own, so that its connections end with it.
    runtime: Option<Runtime>,
}

#[derive(Default)]
pub(crate) struct State {
    engine: Engine,
    /// How many calls came, by name.
    calls: Mutex<HashMap<&'static str, usize>>,
    /// So many calls fail as if the server were starting.
    failing: AtomicUsize,
    /// Calls are taken and never answered.
    hanging: AtomicBool,
    /// What it says of itself.
    version: Mutex<Option<&'static str>>,
}

impl TestQdrant {
    pub(crate) async fn start() -> Self {
        let address = ([127, 0, 0, 1], 0).into();
        let mut server = Self { address, state: Arc::default(), runtime: None };
        server.restart().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections break and nobody listens, as if it were killed.
    pub(crate) async fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            tokio::task::spawn_blocking(|| runtime.shutdown_timeout(Duration::from_secs(5))).await.unwrap();
        }
    }

    pub(crate) async fn restart(&mut self) {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = self.address;
        let listener = runtime.spawn(async move { TcpListener::bind(address).await.unwrap() }).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let services = Services(self.state.clone());
        let serve = Server::builder()
            .add_service(PointsServer::new(services.clone()))
            .add_service(CollectionsServer::new(services.clone()))
            .add_service(QdrantServer::new(services))
            .serve_with_incoming(TcpIncoming::from(listener));
        runtime.spawn(async { serve.await.unwrap() });
        self.runtime = Some(runtime);
    }

    pub(crate) fn hang(&self, hanging: bool) {
        self.state.hanging.store(hanging, Ordering::SeqCst);
    }

    pub(crate) fn fail(&self, calls: usize) {
        self.state.failing.store(calls, Ordering::SeqCst);
    }

    pub(crate) fn claim(&self, version: &'static str) {
        *self.state.version.lock().unwrap() = Some(version);
    }

    pub(crate) fn calls(&self, name: &str) -> usize {
        self.state.calls.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    pub(crate) fn collections(&self) -> Vec<String> {
        self.state.engine.names()
    }
}

impl Drop for TestQdrant {
    /// A runtime may not wait for its threads inside another one.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone)]
struct Services(Arc<State>);

impl Services {
    async fn answer<Q: Send + 'static, A: Send + 'static>(
        &self,
        name: &'static str,
        request: Request<Q>,
        call: fn(&State, Q) -> Result<A, Status>,
    ) -> Result<Response<A>, Status> {
        if request.metadata().get("api-key").is_none_or(|key| key != API_KEY) {
            return Err(Status::unauthenticated("Must provide an API key or an Authorization bearer token"));
        }
        *self.0.calls.lock().unwrap().entry(name).or_default() += 1;
        if self.0.hanging.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let one_less = |left: usize| left.checked_sub(1);
        if self.0.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            return Err(Status::unavailable("the tests want it so"));
        }
        let (state, request) = (self.0.clone(), request.into_inner());
        tokio::task::spawn_blocking(move || call(&state, request)).await.unwrap().map(Response::new)
    }
}

type Answer<'a, A> = Pin<Box<dyn Future<Output = Result<Response<A>, Status>> + Send + 'a>>;

/// The methods of a service, as `async_trait` writes them.
macro_rules! methods {
    ($($name:ident($request:ident) -> $response:ident $(=> $call:expr)?;)*) => {$(
        fn $name<'life0, 'async_trait>(
            &'life0 self,
            request: Request<api::$request>,
        ) -> Answer<'async_trait, api::$response>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            methods!(@ self, request, stringify!($name) $(, $call)?)
        }
    )*};
    (@ $this:ident, $request:ident, $name:expr, $call:expr) => {
        Box::pin(async move { $this.answer($name, $request, $call).await })
    };
    (@ $this:ident, $request:ident, $name:expr) => {
        Box::pin(async move { Err(Status::unimplemented(format!("{}: {:?}", $name, $request.get_ref()))) })
    };
}

impl Points for Services {
    methods! {
        get(GetPoints) -> GetResponse => |state, request| state.engine.get(request);
        scroll(ScrollPoints) -> ScrollResponse => |state, request| state.engine.scroll(request);
        count(CountPoints) -> CountResponse => |state, request| state.engine.count(request);
        facet(FacetCounts) -> FacetResponse => |state, request| state.engine.facet(request);
        query_batch(QueryBatchPoints) -> QueryBatchResponse => |state, request| state.engine.query_batch(request);
        update_batch(UpdateBatchPoints) -> UpdateBatchResponse => |state, request| state.engine.update_batch(request);
        delete(DeletePoints) -> PointsOperationResponse => |state, request| state.engine.delete(request);
        create_field_index(CreateFieldIndexCollection) -> PointsOperationResponse =>
            |state, request| state.engine.create_field_index(request);

        upsert(UpsertPoints) -> PointsOperationResponse;
        update_vectors(UpdatePointVectors) -> PointsOperationResponse;
        delete_vectors(DeletePointVectors) -> PointsOperationResponse;
        set_payload(SetPayloadPoints) -> PointsOperationResponse;
        overwrite_payload(SetPayloadPoints) -> PointsOperationResponse;
        delete_payload(DeletePayloadPoints) -> PointsOperationResponse;
        clear_payload(ClearPayloadPoints) -> PointsOperationResponse;
        delete_field_index(DeleteFieldIndexCollection) -> PointsOperationResponse;
        create_vector_name(CreateVectorNameRequest) -> PointsOperationResponse;
        delete_vector_name(DeleteVectorNameRequest) -> PointsOperationResponse;
        search(SearchPoints) -> SearchResponse;
        search_batch(SearchBatchPoints) -> SearchBatchResponse;
        search_groups(SearchPointGroups) -> SearchGroupsResponse;
        recommend(RecommendPoints) -> RecommendResponse;
        recommend_batch(RecommendBatchPoints) -> RecommendBatchResponse;
        recommend_groups(RecommendPointGroups) -> RecommendGroupsResponse;
        discover(DiscoverPoints) -> DiscoverResponse;
        discover_batch(DiscoverBatchPoints) -> DiscoverBatchResponse;
        query(QueryPoints) -> QueryResponse;
        query_groups(QueryPointGroups) -> QueryGroupsResponse;
        search_matrix_pairs(SearchMatrixPoints) -> SearchMatrixPairsResponse;
        search_matrix_offsets(SearchMatrixPoints) -> SearchMatrixOffsetsResponse;
    }
}

impl Collections for Services {
    methods! {
        get(GetCollectionInfoRequest) -> GetCollectionInfoResponse => |state, request| state.engine.info(&request);
        list(ListCollectionsRequest) -> ListCollectionsResponse => |state, _| Ok(state.engine.list());
        create(CreateCollection) -> CollectionOperationResponse => |state, request| state.engine.create(request);
        delete(DeleteCollection) -> CollectionOperationResponse =>
            |state, request| state.engine.delete_collection(&request);
        update_aliases(ChangeAliases) -> CollectionOperationResponse =>
            |state, request| state.engine.update_aliases(request);
        list_aliases(ListAliasesRequest) -> ListAliasesResponse => |state, _| Ok(state.engine.list_aliases());
        collection_exists(CollectionExistsRequest) -> CollectionExistsResponse =>
            |state, request| Ok(state.engine.exists(&request));

        update(UpdateCollection) -> CollectionOperationResponse;
        list_collection_aliases(ListCollectionAliasesRequest) -> ListAliasesResponse;
        collection_cluster_info(CollectionClusterInfoRequest) -> CollectionClusterInfoResponse;
        update_collection_cluster_setup(UpdateCollectionClusterSetupRequest) -> UpdateCollectionClusterSetupResponse;
        create_shard_key(CreateShardKeyRequest) -> CreateShardKeyResponse;
        delete_shard_key(DeleteShardKeyRequest) -> DeleteShardKeyResponse;
        list_shard_keys(ListShardKeysRequest) -> ListShardKeysResponse;
    }
}

impl Qdrant for Services {
    methods! {
        health_check(HealthCheckRequest) -> HealthCheckReply => |state, _| {
            let version = state.version.lock().unwrap().unwrap_or("1.16.3").to_owned();
            Ok(api::HealthCheckReply { title: "tests".to_owned(), version, commit: None })
        };
    }
}
