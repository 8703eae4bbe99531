//! What must hold whatever bytes come in: as a request, as a cursor, as a token. The fuzzer looks for bytes for which
//! it does not; the tests run the same functions over known ones. Each panics if something does not hold.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;
use std::time::Duration;

use async_graphql::parser::parse_query;
use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Parser;
use evidence_gateway::config::{DbOptions, Limits, Secret};
use evidence_gateway::graphql::admit::{Admitted, Parameters};
use evidence_gateway::graphql::search::Searcher;
use evidence_gateway::graphql::{Graph, refusal};
use evidence_gateway::http::viewer::token::{TokenKeys, mint, read_token};
use evidence_gateway::model::cursor::{CursorKey, Fingerprint};
use evidence_gateway::model::entity::{OrderBy, Type};
use evidence_gateway::model::graph;
use evidence_gateway::model::viewer::{Grant, Holder, Role, Viewer};
use evidence_gateway::model::write::Origin;
use evidence_gateway::store::db::Db;
use evidence_gateway::store::embedder::Embedder;
use evidence_gateway::store::vectors::{Vectors, Words};
use evidence_gateway::telemetry::Metrics;
use hmac::{Hmac, Mac};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::Sha256;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

/// Bytes of an answer without rows at most: every list of the schema's own, and then some.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// Bytes of an error's text at most, beyond those that it repeats from the request.
const MAX_MESSAGE_BYTES: usize = 1_000;

/// The gateway with all stores gone: documents are admitted, validated and planned, and then there are no rows.
struct Rowless {
    runtime: Runtime,
    graph: Graph,
    db: Db,
    limits: Limits,
}

static ROWLESS: LazyLock<Rowless> = LazyLock::new(|| {
    #[derive(Parser)]
    struct Settings {
        #[command(flatten)]
        limits: Limits,
    }
    let limits = Settings::try_parse_from(["fuzz"]).unwrap().limits;
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let options = DbOptions {
        pool_size: 1,
        pool_wait: Duration::from_millis(1),
        statement_timeout: Duration::from_secs(1),
    };
    let nowhere = "postgres://nobody@/nothing?host=%2Fnonexistent";
    let db = runtime.block_on(Db::connect(nowhere, &options)).unwrap();
    let searcher =
        Searcher { embedder: Embedder::off(), vectors: Vectors::Off, words: Words::new().unwrap() };
    let metrics = Metrics::new().unwrap().into();
    let graph = Graph::new(searcher, CursorKey::new(b"of the fuzzer"), metrics, limits.clone());
    Rowless { runtime, graph, db, limits }
});

/// Any bytes as the body of a request, or as its document where they are no JSON.
pub(crate) fn document(data: &[u8]) {
    let parameters = Parameters::read(data).or_else(|| {
        let query = std::str::from_utf8(data).ok()?.to_owned();
        Some(Parameters { query: Some(query), ..Parameters::default() })
    });
    let Some(parameters) = parameters else { return };
    let query = parameters.query.clone().unwrap_or_default();
    let body = match ROWLESS.graph.admit(parameters) {
        Ok(admitted) => execute(&query, admitted),
        Err(refused) => {
            assert!(refused.error.internal_text().is_none(), "{refused:?}");
            refusal(&refused)
        }
    };
    assert!(body.len() < MAX_ANSWER_BYTES, "an answer of {} bytes", body.len());
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let errors = answer.get("errors").map_or(&[][..], |errors| errors.as_array().unwrap());
    let most = usize::try_from(ROWLESS.limits.max_errors).unwrap() + 1;
    assert!(errors.len() <= most && (answer.get("data").is_some() || !errors.is_empty()), "{answer}");
    for error in errors {
        let code = error["extensions"]["code"].as_str().unwrap();
        // UNAVAILABLE is where the rows would begin.
        assert!(["BAD_USER_INPUT", "UNAVAILABLE"].contains(&code), "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(!message.is_empty() && message.len() <= data.len() + MAX_MESSAGE_BYTES, "{error}");
        let inner = ["src/", ".rs:", "async_graphql", "tokio_postgres", "diesel", "panicked", "::"];
        let of_ours = |text: &&&str| message.contains(**text) && !query.contains(**text);
        assert_eq!(inner.iter().find(of_ours), None, "{error}");
    }
}

/// Executes what was admitted; it must be within the limits as a count without any cleverness finds them.
fn execute(query: &str, admitted: Admitted) -> Vec<u8> {
    let Rowless { runtime, graph, db, limits } = &*ROWLESS;
    let document = parse_query(query).unwrap();
    for (name, most) in count(&document, limits) {
        assert!(most.0 <= most.1, "{name}: {} of {}", most.0, most.1);
    }
    let answer = runtime.block_on(graph.execute(admitted, Viewer::admin(), db.session(), Origin::default()));
    answer.into_body()
}

/// What a document comes to when every spread is replaced by its fragment.
#[derive(Default)]
struct Expanded {
    selections: u64,
    fields: u64,
    aliases: u64,
    directives: u64,
    depth: u64,
}

/// Name, number found and number allowed.
fn count(document: &ExecutableDocument, limits: &Limits) -> [(&'static str, (u64, u64)); 5] {
    let mut found = Expanded::default();
    // Whoever spreads walks through fragments that are not fields; each field stands in so many of them at most.
    let most = u64::from(limits.max_fields) * 128;
    for (_, operation) in document.operations.iter() {
        found.walk(document, &operation.node.selection_set.node, 1, most);
    }
    [
        ("selections", (found.selections, most)),
        ("fields", (found.fields, limits.max_fields.into())),
        ("aliases", (found.aliases, limits.max_aliases.into())),
        ("directives", (found.directives, limits.max_directives.into())),
        ("depth", (found.depth, limits.max_depth.into())),
    ]
}

impl Expanded {
    fn walk(&mut self, document: &ExecutableDocument, set: &SelectionSet, depth: u64, most: u64) {
        for selection in &set.items {
            self.selections += 1;
            if self.selections > most {
                return;
            }
            match &selection.node {
                Selection::Field(field) => {
                    self.fields += 1;
                    self.depth = self.depth.max(depth);
                    self.aliases += u64::from(field.node.alias.is_some());
                    self.directives += field.node.directives.len() as u64;
                    self.walk(document, &field.node.selection_set.node, depth + 1, most);
                }
                Selection::InlineFragment(inline) => {
                    self.directives += inline.node.directives.len() as u64;
                    self.walk(document, &inline.node.selection_set.node, depth, most);
                }
                Selection::FragmentSpread(spread) => {
                    self.directives += spread.node.directives.len() as u64;
                    if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node) {
                        self.walk(document, &fragment.node.selection_set.node, depth, most);
                    }
                }
            }
        }
    }
}

/// Types in their own order, in none, and in one with every kind of column.
fn orders() -> Vec<(&'static Type, Vec<OrderBy>)> {
    let mut orders = Vec::new();
    for (_, ty, table) in graph().entities() {
        let every = ty.columns.iter().enumerate().filter(|(_, column)| column.ordered);
        let every = every.map(|(column, _)| OrderBy { column, descending: column % 2 == 0 });
        orders.extend([(ty, table.order.clone()), (ty, Vec::new()), (ty, every.collect())]);
    }
    orders
}

/// Any bytes as a cursor's text, as the cells of one that was really given out, and as what is changed in it.
pub(crate) fn cursor(data: &[u8]) {
    static ORDERS: LazyLock<Vec<(&Type, Vec<OrderBy>)>> = LazyLock::new(orders);
    static KEY: LazyLock<CursorKey> = LazyLock::new(|| CursorKey::new(b"of the fuzzer"));
    let text = String::from_utf8_lossy(data);
    let n = usize::from(data.first().copied().unwrap_or_default());
    let (ty, order) = &ORDERS[n % ORDERS.len()];
    // Nobody signed it.
    refuses(&KEY, &text, ty, order);
    refuses(&KEY, &URL_SAFE_NO_PAD.encode(data), ty, order);

    // The key signs whatever the database sends.
    let mut rest = data.get(1..).unwrap_or_default();
    let mut cells = Vec::new();
    while cells.len() <= order.len() {
        let Some((&length, tail)) = rest.split_first() else { break };
        let (cell, tail) = tail.split_at(tail.len().min(usize::from(length % 24)));
        cells.push((length < 240).then_some(cell));
        rest = tail;
    }
    let signed = KEY.encode(&Fingerprint::new(ty, order), cells.iter().copied());
    if let Ok(cursor) = KEY.decode("after", &signed, ty, order) {
        assert_eq!((cursor.values.len(), cells.len()), (order.len(), order.len() + 1));
        assert_eq!(Some(&cursor.id.as_bytes()[..]), cells[order.len()]);
        let nulls = |n: usize| cursor.values[n].is_none() == cells[n].is_none();
        assert!((0..order.len()).all(nulls), "{cursor:?}");
    }
    // It holds for this order and for no other, under this key and under no other, and unchanged.
    let (other, other_order) = &ORDERS[(n + 1 + rest.len()) % ORDERS.len()];
    if Fingerprint::new(other, other_order) != Fingerprint::new(ty, order) {
        refuses(&KEY, &signed, other, other_order);
    }
    refuses(&CursorKey::new(b"of somebody else"), &signed, ty, order);
    if let Some(changed) = change(&signed, rest) {
        refuses(&KEY, &changed, ty, order);
    }
}

fn refuses(key: &CursorKey, text: &str, ty: &Type, order: &[OrderBy]) {
    let error = key.decode("after", text, ty, order).unwrap_err();
    assert!(error.internal_text().is_none() && error.message().len() < 100, "{error:?}");
    assert_eq!((error.code().as_str(), error.field()), ("BAD_USER_INPUT", Some("after")));
}

/// The text with one character changed, or without its end, or with more at its end; `None` if that is the same.
fn change(text: &str, how: &[u8]) -> Option<String> {
    let (&at, &to) = (how.first()?, how.get(1)?);
    let at = usize::from(at) * 7 % text.len();
    let changed = match to {
        0 => text[..at].to_owned(),
        1 => text.to_owned() + &String::from_utf8_lossy(&how[2..]),
        to => format!("{}{}{}", &text[..at], char::from(to), &text[at + 1..]),
    };
    (changed != text).then_some(changed)
}

/// The moment at which tokens are read.
const NOW_S: i64 = 1_800_000_000;

/// Any bytes as a token's text, as what a good signature stands under, and as what is changed in a good token.
pub(crate) fn token(data: &[u8]) {
    static SECRETS: LazyLock<[Secret; 3]> = LazyLock::new(|| {
        ["the one that signs", "the one before it", "one of somebody else"]
            .map(|text| text.repeat(3).parse().unwrap_or_else(|never| match never {}))
    });
    static KEYS: LazyLock<TokenKeys> = LazyLock::new(|| TokenKeys::new(&SECRETS[0], Some(&SECRETS[1])));
    static GOOD: LazyLock<String> = LazyLock::new(|| {
        let grant = Grant {
            holder: Holder::User(Uuid::max()),
            role: Role::Analyst,
            projects: Some(vec![Uuid::nil()]),
        };
        mint(&KEYS, &grant, u32::MAX).unwrap()
    });
    let text = String::from_utf8_lossy(data);
    // Nobody signed it.
    assert_eq!(read_token(&KEYS, &text, NOW_S), None);
    let (_, good_signature) = GOOD.rsplit_once('.').unwrap();
    assert_eq!(read_token(&KEYS, &format!("{text}.{good_signature}"), NOW_S), None);
    assert!(read_token(&KEYS, &GOOD, NOW_S).is_some());
    if let Some(changed) = change(&GOOD, data) {
        assert_eq!(read_token(&KEYS, &changed, NOW_S), None, "{changed}");
    }

    // Signed, in the previous secret's time too, but by somebody who wrote what they liked.
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (header, payload) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    for secret in &SECRETS[..2] {
        let signed = format!("{message}.{}", sign(&message, secret));
        if let Some(grant) = read_token(&KEYS, &signed, NOW_S) {
            check_grant(&grant, header, payload);
            let longer = format!("{signed}{}", " ".repeat(8_192));
            assert_eq!(read_token(&KEYS, &longer, NOW_S), None);
        }
    }
    let strange = format!("{message}.{}", sign(&message, &SECRETS[2]));
    assert_eq!(read_token(&KEYS, &strange, NOW_S), None);
}

fn sign(message: &str, secret: &Secret) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).unwrap();
    URL_SAFE_NO_PAD.encode(mac.chain_update(message).finalize().into_bytes())
}

/// What was let in says what it must, also to another reader.
fn check_grant(grant: &Grant, header: &[u8], payload: &[u8]) {
    let header: Value = serde_json::from_slice(header).unwrap();
    let known = HashSet::from(["alg", "typ", "kid"]);
    assert!(header.as_object().unwrap().keys().all(|name| known.contains(name.as_str())), "{header}");
    assert_eq!(header["alg"], "HS256");
    let payload = std::str::from_utf8(payload).unwrap();
    // What is not known is not looked into.
    let read: HashMap<String, Box<RawValue>> = serde_json::from_str(payload).unwrap();
    let known = ["iss", "aud", "sub", "exp", "nbf", "iat", "role", "projects"];
    let value = |name: &str| Some((name.to_owned(), serde_json::from_str(read.get(name)?.get()).unwrap()));
    let claims = Value::Object(known.into_iter().filter_map(value).collect());
    assert_eq!(claims["iss"], "evidence-gateway");
    assert!(claims["aud"].to_string().contains("\"evidence-gateway\""), "{claims}");
    let time = |name: &str| claims.get(name).map(|time| time.as_f64().unwrap());
    assert!(time("exp").unwrap() > (NOW_S - 60) as f64, "{claims}");
    let begun = |name: &str| time(name).is_none_or(|time| time <= (NOW_S + 60) as f64);
    assert!(begun("nbf") && begun("iat"), "{claims}");
    assert_eq!(claims["role"], grant.role.as_str());
    let projects = claims.get("projects").map(|ids| ids.as_array().unwrap().len());
    assert_eq!(projects, grant.projects.as_ref().map(Vec::len));
    assert!(projects.is_none_or(|projects| projects <= 100));
}
