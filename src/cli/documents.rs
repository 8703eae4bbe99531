//! `documents`: registers the documents of a client, so that it may run them by their hashes, and nothing else where
//! the settings say so.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Subcommand;
use serde::Deserialize;

use crate::cli::print;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::graphql::admit::{Parameters, check};
use crate::model::document::{DocumentHash, Registered, register};
use crate::store::db::Db;

/// What can be done with documents.
#[derive(Debug, Subcommand)]
pub enum Documents {
    /// Register the documents of a manifest: Apollo's (generate-persisted-query-manifest), or the object of hashes and
    /// documents that graphql-codegen writes (with hashAlgorithm: sha256).
    Load {
        /// The manifest.
        file: PathBuf,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Manifest {
    Apollo { format: String, version: u32, operations: Vec<Operation> },
    Codegen(BTreeMap<String, String>),
}

#[derive(Deserialize)]
struct Operation {
    id: String,
    name: Option<String>,
    body: String,
}

impl Documents {
    /// Does it. Nothing is registered if anything is wrong.
    pub async fn run(self, config: &Config) -> Result<()> {
        let Self::Load { file } = self;
        let name = file.display().to_string();
        let text = std::fs::read_to_string(&file)
            .map_err(|error| Error::bad_input(&name, "cannot be read").because(error))?;
        let documents = read(&text).map_err(|wrong| Error::bad_input(&name, wrong))?;
        for Registered { hash, text, .. } in &documents {
            let parameters = Parameters { query: Some(text.clone()), ..Parameters::default() };
            // Of several operations clients name one; and the variables are theirs.
            let refused = check(parameters, &config.limits)
                .err()
                .filter(|refusal| refusal.error.field() != Some("operationName"));
            let refused = refused
                .filter(|refusal| !refusal.error.field().is_some_and(|field| field.starts_with("variables")));
            if let Some(refusal) = refused {
                return Err(Error::bad_input(
                    &name,
                    format!("has a document that cannot be run: {hash}: {}", refusal.error.message()),
                ));
            }
        }
        let db = Db::connect(config.required_database_url()?, &config.db_options()).await?;
        let new = register(&db.session(), &documents).await?;
        print(&format!("{} documents, {new} of them new\n", documents.len()))
    }
}

/// Reads a manifest. Fails with what is wrong.
fn read(text: &str) -> std::result::Result<Vec<Registered>, String> {
    let manifest = serde_json::from_str(text)
        .map_err(|_| "is neither Apollo's manifest nor an object of hashes and documents")?;
    let operations = match manifest {
        Manifest::Apollo { format, version: 1, operations }
            if format == "apollo-persisted-query-manifest" =>
        {
            operations
        }
        Manifest::Apollo { format, version, .. } => {
            return Err(format!("is of the format {format:?}, version {version}, which is not known"));
        }
        Manifest::Codegen(map) => {
            map.into_iter().map(|(id, body)| Operation { id, name: None, body }).collect()
        }
    };
    let mut documents = Vec::with_capacity(operations.len());
    for Operation { id, name, body } in operations {
        let hash = DocumentHash::read(&id).filter(|hash| *hash == DocumentHash::of(&body));
        let hash = hash.ok_or_else(|| format!("calls a document {id:?}, which is not its SHA-256"))?;
        documents.push(Registered { hash, text: body, operation: name });
    }
    Ok(documents)
}
