//! One operation, from the bytes that ask for it to what came of it, whatever brought the bytes: a POST, a query
//! string, or a message on a socket.

use std::task::Poll;

use axum::body::Bytes;
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, Method, StatusCode};
use serde_json::value::RawValue;

use crate::app::App;
use crate::error::{Code, Error};
use crate::graphql::Answer;
use crate::graphql::admit::{Admitted, Parameters, Refusal};
use crate::http::cached::{self, Answered, Ask, Kept, Status};
use crate::http::consistency;
use crate::http::observe::{RequestId, Served};
use crate::http::persisted;
use crate::http::server::Peer;
use crate::live::Stream;
use crate::model::viewer::{Role, Viewer};
use crate::model::write::Origin;

/// Makes the repetition of a request's mutations safe. `extensions.idempotencyKey` does so as well.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A request as it came, not yet read.
pub(super) enum Sent {
    /// The body of a POST, or the payload of a message: they look the same.
    Body(Bytes),
    /// The query string of a GET.
    Query(String),
}

impl Sent {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Body(bytes) => bytes,
            Self::Query(query) => query.as_bytes(),
        }
    }

    const fn method(&self) -> Method {
        match self {
            Self::Body(_) => Method::POST,
            Self::Query(_) => Method::GET,
        }
    }

    fn read(&self) -> Result<Parameters, Refused> {
        let wrong = || Refused::new(StatusCode::BAD_REQUEST, "the body is not a GraphQL request in JSON");
        match self {
            Self::Body(bytes) => Parameters::read(bytes).ok_or_else(wrong),
            Self::Query(query) => read_query_string(query),
        }
    }
}

fn read_query_string(query: &str) -> Result<Parameters, Refused> {
    let mut parameters = Parameters::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let json = |text: String| {
            let wrong =
                |_| Refused::new(StatusCode::BAD_REQUEST, "variables and extensions must be JSON objects");
            RawValue::from_string(text).map(Some).map_err(wrong)
        };
        match name.as_ref() {
            "query" => parameters.query = Some(value.into_owned()),
            "documentId" => parameters.document_id = Some(value.into_owned()),
            "operationName" => parameters.operation_name = Some(value.into_owned()),
            "variables" if !value.is_empty() => parameters.variables = json(value.into_owned())?,
            "extensions" if !value.is_empty() => parameters.extensions = json(value.into_owned())?,
            _ => {}
        }
    }
    Ok(parameters)
}

/// Where a request comes from, as the audit trail will tell it. What a proxy or a client says of addresses in headers
/// is not believed: the trail has the other end of the connection.
pub(super) fn origin(headers: &HeaderMap, id: &RequestId, peer: Option<Peer>) -> Origin {
    let text =
        |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    Origin {
        request_id: id.as_str().to_owned(),
        address: peer.map(|Peer(address)| address.to_canonical().to_string()),
        user_agent: text(USER_AGENT.as_str()),
        idempotency_key: text(IDEMPOTENCY_KEY),
    }
}

/// What is said to a request that is not executed.
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) refusal: Refusal,
}

impl Refused {
    pub(super) fn new(status: StatusCode, text: &'static str) -> Self {
        Self { status, refusal: Error::new(Code::BadUserInput, text).into() }
    }

    /// Notes what it was.
    pub(super) fn count(&self, app: &App, served: &mut Served) {
        served.codes.push(self.refusal.error.code());
        if let Some(limit) = self.refusal.error.limit() {
            app.metrics.refused(limit);
        }
    }
}

/// What a transport can do with the answer.
pub(super) struct Transport {
    /// It has the media type of GraphQL, where a refusal has a status that says so.
    pub(super) modern: bool,
    /// How many answers it can carry.
    pub(super) answers: Answers,
}

/// How many answers a transport can carry.
pub(super) enum Answers {
    /// One.
    One,
    /// As many as there are.
    Many {
        /// The cursor of the last one that the client has seen, if it says so.
        resume: Option<String>,
    },
}

/// What a request came to.
pub(super) enum Done {
    /// An answer that the cache has.
    Kept(Kept, Ask),
    /// One that it has not, and the token of what it wrote.
    Answer(Answer, Status, Option<String>),
    /// Answers to come.
    Stream(Stream),
}

/// A request whose sender is known.
pub(super) struct Incoming {
    pub(super) viewer: Viewer,
    pub(super) sent: Sent,
    pub(super) transport: Transport,
}

/// Executes, or finds out that it need not. What came before in the same bytes is not even read.
pub(super) async fn perform(
    app: &App,
    headers: &HeaderMap,
    incoming: Incoming,
    origin: impl FnOnce() -> Origin,
    served: &mut Served,
) -> Result<Done, Refused> {
    let Incoming { viewer, sent, transport } = incoming;
    // The same bytes may ask for one answer here and for a stream there.
    let many = matches!(transport.answers, Answers::Many { .. });
    let ask = Ask::new(app, headers, &viewer, sent.method(), sent.bytes(), many);
    if let Some(hit) = cached::recall(app, &ask).await {
        served.operation = hit.operation();
        return Ok(Done::Kept(hit, ask));
    }
    // In memory of its own, which an answer from the cache does not need.
    let asked = Asked { viewer, sent, ask, origin: origin(), transport };
    Box::pin(answer(app, headers, asked, served)).await
}

/// A request that has to be read.
struct Asked {
    viewer: Viewer,
    sent: Sent,
    ask: Ask,
    origin: Origin,
    transport: Transport,
}

async fn answer(app: &App, headers: &HeaderMap, asked: Asked, served: &mut Served) -> Result<Done, Refused> {
    let Asked { viewer, sent, mut ask, mut origin, transport } = asked;
    let Transport { modern, answers } = transport;
    let mut parameters = sent.read()?;
    let refuse = |refusal| Refused { status: persisted::status(&refusal, modern), refusal };
    let named = persisted::complete(app, &viewer, &mut parameters).await.map_err(refuse)?;
    let mut admitted = admit(app, &sent.method(), modern, parameters)?;
    if let Some(hash) = named {
        app.documents.keep(hash, admitted.document());
    }
    served.operation = admitted.operation.clone();
    if admitted.extensions.cache && matches!(viewer.role, Role::Analyst | Role::Admin) {
        ask.explain();
    }
    let token = admitted.extensions.consistency_token.as_deref();
    ask.must_be_fresh |= token.is_some();
    let waited = consistency::wait(app, headers, token).await;
    waited.map_err(|(status, error)| Refused { status, refusal: error.into() })?;
    match answers {
        Answers::Many { resume } if admitted.is_stream() => {
            let opened = Box::pin(app.live.open(app, admitted, viewer, resume));
            return in_time(app, opened).await?.map(Done::Stream).map_err(refuse);
        }
        Answers::One if admitted.operation.kind == "subscription" => {
            let text =
                "a subscription needs a stream: graphql-transport-ws on GET /graphql, or text/event-stream";
            return Err(refuse(Error::new(Code::BadUserInput, text).into()));
        }
        _ => {}
    }
    origin.idempotency_key = origin.idempotency_key.or_else(|| admitted.extensions.idempotency_key.take());
    let session = app.db.session();
    let answered = Box::pin(cached::answer(app, &ask, admitted, viewer, session.clone(), origin));
    let answered = in_time(app, answered).await;
    served.statements = session.statements();
    match answered? {
        Answered::Kept(kept) => Ok(Done::Kept(kept, ask)),
        Answered::Fresh(mut answer, status) => {
            let token = if answer.written { consistency::settle(app, &mut answer).await } else { None };
            Ok(Done::Answer(answer, status, token))
        }
    }
}

fn admit(app: &App, method: &Method, modern: bool, parameters: Parameters) -> Result<Admitted, Refused> {
    let admitted = app.graph.admit(parameters).map_err(|refusal| {
        // In plain JSON whatever is a request of GraphQL is answered with 200, as clients of that type expect.
        let good = !modern && !refusal.malformed;
        Refused { status: if good { StatusCode::OK } else { StatusCode::BAD_REQUEST }, refusal }
    })?;
    if *method == Method::GET && admitted.operation.kind == "mutation" {
        // Browsers and proxies repeat a GET at will, and a link on any page sends one.
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "only queries may come by GET"));
    }
    Ok(admitted)
}

/// What takes longer than a request may is dropped, and its statements are cancelled.
pub(super) async fn in_time<T>(app: &App, work: impl Future<Output = T>) -> Result<T, Refused> {
    let mut work = std::pin::pin!(work);
    // What is known already needs no clock.
    if let Poll::Ready(done) = futures_util::poll!(work.as_mut()) {
        return Ok(done);
    }
    tokio::time::timeout(app.config.limits.request_timeout(), work).await.map_err(|_| {
        let error = Error::new(Code::Timeout, "the request took longer than its limit");
        Refused { status: StatusCode::GATEWAY_TIMEOUT, refusal: error.into() }
    })
}

/// The answer to somebody who is not recognised.
pub(super) fn unknown(error: Error) -> Refused {
    let status = match error.code() {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        // Nobody can be recognised while the database does not answer.
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refused { status, refusal: error.into() }
}
