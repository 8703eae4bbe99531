//! Owns the collections behind an alias: how they are made, whether they are what we think, and which is the present.

use std::sync::{Mutex, PoisonError};

use qdrant_client::Qdrant;
use qdrant_client::qdrant::payload_index_params::IndexParams;
use qdrant_client::qdrant::quantization_config::Quantization as QuantizationConfig;
use qdrant_client::qdrant::{
    BinaryQuantization, CreateAlias, CreateCollection, CreateFieldIndexCollection, Distance, FieldType,
    PayloadIndexParams, QuantizationType, ScalarQuantization, SparseVectorConfig, SparseVectorParams,
    UuidIndexParams, VectorParams, VectorParamsMap, VectorsConfig, vectors_config,
};
use serde_json::{Map, Value, json};
use tonic::Code as Status;

use super::super::{BM25, DENSE, FORMAT, Indexed, Kind, Layout};
use super::retry::{Client, code, repeatable};
use crate::config::{Quantization, VectorSettings};
use crate::error::{Code, Error, Result};

/// The first version that can make a write depend on what it replaces.
const VERSION_MIN: (u32, u32) = (1, 16);

/// A collection: the present one, through its alias, or a draft, by its own name.
#[derive(Debug)]
pub(super) struct Collection {
    alias: String,
    /// The number of a draft.
    draft: Option<u32>,
    /// What the alias stood for when that was last looked at.
    seen: Mutex<Option<String>>,
    shards: u32,
    replication_factor: u32,
    quantization: Quantization,
    on_disk: bool,
}

impl Collection {
    pub(super) fn present(settings: &VectorSettings) -> Self {
        Self {
            alias: settings.qdrant_collection.clone(),
            draft: None,
            seen: Mutex::default(),
            shards: settings.qdrant_shards,
            replication_factor: settings.qdrant_replication_factor,
            quantization: settings.qdrant_quantization,
            on_disk: settings.qdrant_on_disk,
        }
    }

    pub(super) fn name(&self) -> String {
        self.draft.map_or_else(|| self.alias.clone(), |number| self.numbered(number))
    }

    fn numbered(&self, number: u32) -> String {
        format!("{}-{number}", self.alias)
    }

    fn number(&self, name: &str) -> Option<u32> {
        name.strip_prefix(&self.alias)?.strip_prefix('-')?.parse().ok()
    }

    /// Makes the collection if it is not there, and refuses one of another layout.
    pub(super) async fn ensure(&self, client: &Client, layout: &Layout) -> Result<()> {
        check_server(client).await?;
        if self.draft.is_none() && self.target(client).await?.is_none() {
            // It may be there without its alias, if somebody was interrupted here, or is here too.
            self.create(client, &self.numbered(1), layout).await?;
            self.point_alias_to(client, self.numbered(1)).await?;
        }
        self.check_layout(client, &self.name(), layout).await?;
        let target = self.target(client).await?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = target;
        Ok(())
    }

    /// The draft that is there, if it has this layout, or else a new one.
    pub(super) async fn open_draft(&self, client: &Client, layout: &Layout) -> Result<Self> {
        check_server(client).await?;
        let present = self.target(client).await?.and_then(|name| self.number(&name)).unwrap_or(0);
        let last = self.numbers(client).await?.into_iter().max().unwrap_or(0);
        let number = last.max(present + 1);
        let name = self.numbered(number);
        if last == number && self.check_layout(client, &name, layout).await.is_err() {
            delete(client, &name).await?;
        }
        self.create(client, &name, layout).await?;
        self.check_layout(client, &name, layout).await?;
        let (alias, seen) = (self.alias.clone(), Mutex::default());
        Ok(Self { alias, draft: Some(number), seen, ..*self })
    }

    /// Lets the alias stand for the draft and deletes the collections before it.
    pub(super) async fn publish(&self, client: &Client) -> Result<()> {
        let Some(draft) = self.draft else { return Err(Error::internal("only a draft can be published")) };
        self.point_alias_to(client, self.numbered(draft)).await?;
        for former in self.numbers(client).await?.into_iter().filter(|number| *number < draft) {
            delete(client, &self.numbered(former)).await?;
        }
        Ok(())
    }

    /// Whether the alias stands for another collection than when it was last looked at.
    pub(super) async fn refresh(&self, client: &Client, layout: &Layout) -> Result<bool> {
        let target = self.target(client).await?;
        if self.draft.is_some() || *self.seen.lock().unwrap_or_else(PoisonError::into_inner) == target {
            return Ok(false);
        }
        self.ensure(client, layout).await?;
        Ok(true)
    }

    async fn target(&self, client: &Client) -> Result<Option<String>> {
        let aliases = client.read(|client| async move { client.list_aliases().await }).await?.aliases;
        let ours = aliases.into_iter().find(|alias| alias.alias_name == self.alias);
        Ok(ours.map(|alias| alias.collection_name))
    }

    /// One action, which replaces what the alias stood for before: there is no moment without it.
    async fn point_alias_to(&self, client: &Client, collection_name: String) -> Result<()> {
        let request = CreateAlias { collection_name, alias_name: self.alias.clone() };
        client.write(repeatable!(create_alias(request))).await?;
        if self.target(client).await?.as_ref() == Some(&request.collection_name) {
            return Ok(());
        }
        Err(Error::unavailable("the vector index", "the server did not change the alias"))
    }

    async fn numbers(&self, client: &Client) -> Result<Vec<u32>> {
        let found = client.read(|client| async move { client.list_collections().await }).await?.collections;
        Ok(found.iter().filter_map(|collection| self.number(&collection.name)).collect())
    }

    /// One that is there already is left as it is, save for the indexes of payload keys that it lacks.
    async fn create(&self, client: &Client, name: &str, layout: &Layout) -> Result<()> {
        let request = self.creation(name, layout);
        let exists = client.read(repeatable!(collection_exists(name.to_owned()))).await?;
        if !exists {
            let create = |client: Qdrant| {
                let request = request.clone();
                async move {
                    match client.create_collection(request).await {
                        // Another process was faster, or this is a repetition.
                        Err(error) if code(&error) == Some(Status::AlreadyExists) => Ok(()),
                        done => done.map(drop),
                    }
                }
            };
            client.write(create).await?;
        }
        for (key, indexed) in layout.indexed() {
            let request = index(name, key, &indexed);
            client.write(repeatable!(create_field_index(request))).await?;
        }
        Ok(())
    }

    #[allow(deprecated, reason = "servers before 1.20 do not know what replaces on_disk")]
    fn creation(&self, name: &str, layout: &Layout) -> CreateCollection {
        let dense = VectorParams {
            size: layout.dimension as u64,
            distance: Distance::Cosine.into(),
            on_disk: Some(self.on_disk),
            quantization_config: self.quantized().map(Into::into),
            ..VectorParams::default()
        };
        // How rare words are is weighed in the question.
        let bm25 = SparseVectorParams::default();
        let map = VectorParamsMap { map: [(DENSE.to_owned(), dense)].into() };
        CreateCollection {
            collection_name: name.to_owned(),
            shard_number: Some(self.shards),
            replication_factor: Some(self.replication_factor),
            vectors_config: Some(VectorsConfig { config: Some(vectors_config::Config::ParamsMap(map)) }),
            sparse_vectors_config: Some(SparseVectorConfig { map: [(BM25.to_owned(), bm25)].into() }),
            metadata: made(layout).into_iter().map(|(key, value)| (key, value.into())).collect(),
            ..CreateCollection::default()
        }
    }

    #[allow(deprecated, reason = "servers before 1.20 do not know what replaces always_ram")]
    fn quantized(&self) -> Option<QuantizationConfig> {
        match self.quantization {
            Quantization::None => None,
            Quantization::Scalar => Some(QuantizationConfig::Scalar(ScalarQuantization {
                r#type: QuantizationType::Int8.into(),
                always_ram: Some(true),
                ..ScalarQuantization::default()
            })),
            Quantization::Binary => Some(QuantizationConfig::Binary(BinaryQuantization {
                always_ram: Some(true),
                ..BinaryQuantization::default()
            })),
        }
    }

    async fn check_layout(&self, client: &Client, name: &str, layout: &Layout) -> Result<()> {
        let info = client.read(repeatable!(collection_info(name.to_owned()))).await?.result;
        let config = info.and_then(|info| info.config).unwrap_or_default();
        let there: Map<String, Value> =
            config.metadata.into_iter().map(|(key, value)| (key, value.into())).collect();
        if there == made(layout) {
            return Ok(());
        }
        let number = |key: &str| there.get(key).and_then(Value::as_u64).unwrap_or_default();
        let model = there.get("model").and_then(Value::as_str).unwrap_or("an unknown model");
        let dimension = usize::try_from(number("dimension")).unwrap_or_default();
        let format = u32::try_from(number("format")).unwrap_or_default();
        Err(layout.refuse(&format!("{name} on the Qdrant server"), model, dimension, format))
    }
}

/// What a collection was made for, as it tells it itself.
fn made(layout: &Layout) -> Map<String, Value> {
    let Layout { model, dimension, .. } = layout;
    let made = [
        ("model", json!(model)),
        ("dimension", json!(dimension)),
        ("keys", json!(layout.keys_text())),
        ("format", json!(FORMAT)),
    ];
    made.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn index(name: &str, key: &str, indexed: &Indexed) -> CreateFieldIndexCollection {
    let field_type = match indexed {
        Indexed::Integer => FieldType::Integer,
        Indexed::Of(Kind::Tenant | Kind::Id) => FieldType::Uuid,
        Indexed::Of(Kind::Keyword) => FieldType::Keyword,
        Indexed::Of(Kind::Number) => FieldType::Float,
        Indexed::Of(Kind::Flag) => FieldType::Bool,
        Indexed::Of(Kind::Time) => FieldType::Datetime,
    };
    let tenant = UuidIndexParams { is_tenant: Some(true), ..UuidIndexParams::default() };
    let is_tenant = matches!(indexed, Indexed::Of(Kind::Tenant));
    CreateFieldIndexCollection {
        collection_name: name.to_owned(),
        wait: Some(true),
        field_name: key.to_owned(),
        field_type: Some(field_type.into()),
        field_index_params: is_tenant
            .then_some(PayloadIndexParams { index_params: Some(IndexParams::UuidIndexParams(tenant)) }),
        ..CreateFieldIndexCollection::default()
    }
}

async fn delete(client: &Client, name: &str) -> Result<()> {
    client.write(repeatable!(delete_collection(name.to_owned()))).await.map(drop)
}

async fn check_server(client: &Client) -> Result<()> {
    let version = client.read(|client| async move { client.health_check().await }).await?.version;
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let (least, most) = VERSION_MIN;
    if (parts.next().flatten(), parts.next().flatten()) >= (Some(least), Some(most)) {
        return Ok(());
    }
    let text = format!("the Qdrant server has version {version:?}; it takes {least}.{most} or later");
    Err(Error::new(Code::Unavailable, text))
}
