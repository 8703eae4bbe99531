//! `@live`: a query whose answer is sent again whenever it changes. What the directive says is read here; following
//! is not the schema's business.

use std::time::Duration;

use async_graphql::registry::{__DirectiveLocation as Location, MetaDirective, Registry};
use async_graphql::{Request, Value};

use crate::error::{Code, Error, Result};
use crate::graphql::admit::{Admitted, Chosen, Extensions};
use crate::graphql::document::Document;
use crate::graphql::types::meta::argument;

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
    let throttle = format!(
        "How many milliseconds lie between two answers at least: {least} to {most}, {usual} unless given. What was in \
         between is left out."
    );
    let args = [
        argument("if", "Boolean", "Whether it is live at all; it is unless given."),
        argument("throttleMs", "Int", &throttle),
        argument(
            "patch",
            "Boolean",
            "Send what changed and not the whole again: {\"patch\", \"revision\"} with a JSON Patch (RFC 6902) of data. \
             Revision 1 is a whole answer, which may come again.",
        ),
    ];
    registry.add_directive(MetaDirective {
        name: NAME.to_owned(),
        description: Some(
            "Over a transport that carries streams: sends the answer again whenever it changes. Elsewhere it is \
             answered once."
                .to_owned(),
        ),
        locations: vec![Location::QUERY],
        args: args.into_iter().map(|argument| (argument.name.clone(), argument)).collect(),
        is_repeatable: false,
        visible: None,
        composable: None,
    });
}

impl Admitted {
    /// How it wants to be followed; `None` for what is no live query.
    pub fn live(&mut self) -> Result<Option<LiveQuery>> {
        if self.operation.kind != "query" {
            return Ok(None);
        }
        let (name, variables) = (self.request.operation_name.clone(), self.request.variables.clone());
        let document = self.request.parsed_query().map_err(|error| Error::internal(error.message))?;
        let mut operations = document.operations.iter();
        let chosen = operations.find(|(known, _)| known.map(|known| known.as_str()) == name.as_deref());
        let Some((_, operation)) = chosen else { return Ok(None) };
        let mut directives = operation.node.directives.iter();
        let Some(live) = directives.find(|directive| directive.node.name.node.as_str() == NAME) else {
            return Ok(None);
        };
        let of =
            Document { operation: &operation.node, fragments: &document.fragments, variables: &variables };
        let argument = |name: &str| {
            let value = live.node.get_argument(name).and_then(|value| of.value(&value.node));
            value.filter(|value| *value != Value::Null)
        };
        if argument("if") == Some(Value::Boolean(false)) {
            return Ok(None);
        }
        let (least, most, usual) = THROTTLE_MS;
        let throttle = match argument("throttleMs") {
            None => usual,
            Some(Value::Number(number)) if number.as_u64().is_some_and(|ms| (least..=most).contains(&ms)) => {
                number.as_u64().unwrap_or(usual)
            }
            Some(_) => {
                let text = format!("is not a whole number from {least} to {most}");
                return Err(Error::bad_input("throttleMs", text));
            }
        };
        let patch = argument("patch") == Some(Value::Boolean(true));
        Ok(Some(LiveQuery { throttle: Duration::from_millis(throttle), patch }))
    }

    /// The same operation, to be executed once more.
    pub fn again(&mut self) -> Result<Self> {
        let document = self.request.parsed_query().map_err(|error| {
            Error::new(Code::BadUserInput, "the document cannot be parsed").because(error.message)
        })?;
        let document = document.clone();
        let mut request = Request::new(self.request.query.clone()).variables(self.request.variables.clone());
        request.operation_name.clone_from(&self.request.operation_name);
        request.set_parsed_query(document);
        let operation = Chosen { name: self.operation.name.clone(), kind: self.operation.kind };
        Ok(Self { request, extensions: Extensions::default(), operation })
    }
}
