//! The messages of graphql-transport-ws, to the letter of its PROTOCOL.md.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::http::viewer::{Presented, bearer};

/// What a client says.
pub(super) enum Message<'a> {
    /// Wants to begin.
    ConnectionInit(Option<&'a RawValue>),
    /// Asks for a pong.
    Ping(Option<&'a RawValue>),
    /// Is there.
    Pong,
    /// Wants an operation to be executed.
    Subscribe { id: String, payload: &'a RawValue },
    /// Wants no more of an operation.
    Complete { id: String },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: String,
    id: Option<String>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

/// Of a payload of `subscribe`, what must be as the protocol says. Whether it can be executed is seen later.
#[derive(Deserialize)]
struct Request<'a> {
    query: Option<String>,
    #[serde(rename = "operationName")]
    _operation_name: Option<String>,
    #[serde(borrow)]
    variables: Option<&'a RawValue>,
    #[serde(borrow)]
    extensions: Option<&'a RawValue>,
    #[serde(rename = "documentId")]
    document_id: Option<String>,
}

impl<'a> Message<'a> {
    /// Reads a message; what is wrong with it, if it is none.
    pub(super) fn read(text: &'a str) -> Result<Self, &'static str> {
        // serde would take a list of the values for the object, too.
        if !text.trim_ascii_start().starts_with('{') {
            return Err("Invalid message: not a JSON object");
        }
        let Envelope { kind, id, payload } = serde_json::from_str(text)
            .map_err(|_| "Invalid message: not JSON of the form {id, type, payload}")?;
        let payload = payload.filter(|raw| raw.get() != "null");
        let id = || id.filter(|id| !id.is_empty()).ok_or("Invalid message: a non-empty id is needed");
        let object = match payload {
            Some(raw) if !raw.get().starts_with('{') => Err("Invalid message: the payload is not an object"),
            payload => Ok(payload),
        };
        match kind.as_str() {
            "connection_init" => Ok(Self::ConnectionInit(object?)),
            "ping" => Ok(Self::Ping(object?)),
            "pong" => object.map(|_| Self::Pong),
            "subscribe" => {
                let payload = object?.ok_or("Invalid message: subscribe needs a payload")?;
                check(payload)?;
                Ok(Self::Subscribe { id: id()?, payload })
            }
            "complete" => Ok(Self::Complete { id: id()? }),
            _ => Err("Invalid message: no type that a client may send"),
        }
    }
}

#[derive(Deserialize)]
struct Hashed {
    #[serde(rename = "persistedQuery")]
    _persisted_query: IgnoredAny,
}

fn check(payload: &RawValue) -> Result<(), &'static str> {
    let wrong =
        "Invalid message: the payload of subscribe is not {query, operationName, variables, extensions}";
    let request: Request<'_> = serde_json::from_str(payload.get()).map_err(|_| wrong)?;
    let is_object =
        |raw: Option<&RawValue>| raw.is_none_or(|raw| matches!(raw.get().as_bytes()[0], b'{' | b'n'));
    // A document may be named by its hash instead: in the extensions, as Apollo does, or by its id.
    let hash = || {
        let hashed = |raw: &RawValue| serde_json::from_str::<Hashed>(raw.get()).is_ok();
        request.extensions.is_some_and(hashed)
    };
    let named = request.query.is_some() || request.document_id.is_some() || hash();
    if named && is_object(request.variables) && is_object(request.extensions) { Ok(()) } else { Err(wrong) }
}

/// What a payload of `connection_init` says of who it is.
#[derive(Deserialize, Default)]
pub(super) struct Credentials {
    #[serde(alias = "Authorization")]
    authorization: Option<String>,
    #[serde(rename = "x-api-key", alias = "X-API-Key", alias = "apiKey")]
    api_key: Option<String>,
    ticket: Option<String>,
}

impl Credentials {
    /// Reads a payload; `None` if a member is not what it should be.
    pub(super) fn read(payload: Option<&RawValue>) -> Option<Self> {
        payload.map_or(Some(Self::default()), |raw| serde_json::from_str(raw.get()).ok())
    }

    /// Whether they try to say who it is.
    pub(super) const fn any(&self) -> bool {
        self.authorization.is_some() || self.api_key.is_some() || self.ticket.is_some()
    }

    /// The one credential; of two nobody could say which of them counts.
    pub(super) fn presented(&self) -> Option<Presented<'_>> {
        match (&self.authorization, &self.api_key, &self.ticket) {
            (Some(value), None, None) => bearer(value),
            (None, Some(key), None) => Some(Presented::ApiKey(key)),
            (None, None, Some(ticket)) => Some(Presented::Ticket(ticket)),
            _ => None,
        }
    }
}

/// `connection_ack`
pub(super) const ACK: &str = r#"{"type":"connection_ack"}"#;

/// `pong`, with what came with the ping.
pub(super) fn pong(payload: Option<&RawValue>) -> String {
    match payload {
        Some(payload) => format!(r#"{{"type":"pong","payload":{payload}}}"#),
        None => r#"{"type":"pong"}"#.to_owned(),
    }
}

/// `next`: a result, in the bytes of its JSON.
pub(super) fn next(id: &str, result: &[u8]) -> Vec<u8> {
    with_payload(id, "next", result)
}

/// `error`: the list of errors of an answer that has nothing else.
pub(super) fn error(id: &str, answer: &[u8]) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Errors<'a> {
        #[serde(borrow)]
        errors: &'a RawValue,
    }
    let errors = serde_json::from_slice::<Errors<'_>>(answer).map(|answer| answer.errors.get());
    with_payload(id, "error", errors.unwrap_or("[]").as_bytes())
}

/// `complete`
pub(super) fn complete(id: &str) -> Vec<u8> {
    format!(r#"{{"id":{},"type":"complete"}}"#, quoted(id)).into_bytes()
}

fn with_payload(id: &str, kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(payload.len() + id.len() + 40);
    message.extend_from_slice(format!(r#"{{"id":{},"type":"{kind}","payload":"#, quoted(id)).as_bytes());
    message.extend_from_slice(payload);
    message.push(b'}');
    message
}

/// A text as JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
