//! `@live`: a query whose answer is sent again whenever it changes. What the directive says is read here; following
//! is not the schema's business.

use std::time::Duration;

use async_graphql::parser::types::OperationType;
use async_graphql::registry::{__DirectiveLocation as Location, MetaDirective, Registry};
use async_graphql::{Request, Value};

use crate::error::{Error, Result};
use crate::graphql::admit::{Admitted, Extensions};
use crate::graphql::document::Document;
use crate::graphql::types::meta::directive_argument;

const NAME: &str = "live";
/// The bounds of `throttleMs`, and what it is unless given.
const THROTTLE_MS: (u64, u64, u64) = (10, 60_000, 100);

/// How a live query wants to be followed.
#[derive(Debug, Clone, Copy)]
pub struct LiveQuery {
    /// Between two executions, at least.
    pub throttle: Duration,
    /// Whether the client takes patches.
    pub patch: bool,
}

/// Adds the directive.
pub(super) fn add_live(registry: &mut Registry) {
    let (least, most, usual) = THROTTLE_MS;
    let doc = format!(
        "Over a transport that carries streams: sends the answer again whenever it changes. Elsewhere, and with `if: \
         false`, it is answered once. `throttleMs` milliseconds lie between two answers at least ({least} to {most}, \
         {usual} unless given); what was in between is left out. With `patch` what changed is sent and not the whole \
         again: {{\"patch\", \"revision\"}} with a JSON Patch (RFC 6902) of `data`. Revision 1 is a whole answer, which \
         may come again."
    );
    let args = [("if", "Boolean"), ("throttleMs", "Int"), ("patch", "Boolean")];
    registry.add_directive(MetaDirective {
        name: NAME.to_owned(),
        description: Some(doc),
        locations: vec![Location::QUERY],
        args: args.into_iter().map(|(name, ty)| directive_argument(name, ty)).collect(),
        is_repeatable: false,
        visible: None,
        composable: None,
    });
}

/// How an operation wants to be followed; `None` for what is no live query.
pub(super) fn read(of: Document<'_>) -> Result<Option<LiveQuery>> {
    let mut directives = of.operation.directives.iter();
    let live = directives.find(|directive| directive.node.name.node.as_str() == NAME);
    let Some(live) = live.filter(|_| of.operation.ty == OperationType::Query) else { return Ok(None) };
    let argument = |name: &str| {
        let value = live.node.get_argument(name).and_then(|value| of.value(&value.node));
        value.filter(|value| *value != Value::Null)
    };
    if argument("if") == Some(Value::Boolean(false)) {
        return Ok(None);
    }
    let (least, most, usual) = THROTTLE_MS;
    let throttle = match argument("throttleMs") {
        None => Some(usual),
        Some(Value::Number(number)) => number.as_u64().filter(|ms| (least..=most).contains(ms)),
        Some(_) => None,
    };
    let wrong = || Error::bad_input("throttleMs", format!("is not a whole number from {least} to {most}"));
    let throttle = Duration::from_millis(throttle.ok_or_else(wrong)?);
    Ok(Some(LiveQuery { throttle, patch: argument("patch") == Some(Value::Boolean(true)) }))
}

impl Admitted {
    /// Whether it has more than one answer, over a transport that carries streams. A query with `@live` may also be
    /// answered once, elsewhere.
    pub fn is_stream(&self) -> bool {
        self.live.is_some() || self.operation.kind == "subscription"
    }

    /// The same operation, to be executed once more.
    pub fn again(&mut self) -> Result<Self> {
        let document = self.request.parsed_query().map_err(|error| Error::internal(error.message))?.clone();
        let mut request = Request::new(self.request.query.clone()).variables(self.request.variables.clone());
        request.operation_name.clone_from(&self.request.operation_name);
        request.set_parsed_query(document);
        let operation = self.operation.clone();
        Ok(Self { request, extensions: Extensions::default(), operation, live: self.live })
    }
}
