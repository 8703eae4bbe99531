//! `@cacheControl` in the schema: how old an answer may be that shows a type, and whose it is. What it says is what
//! the response cache does; both read the same declarations.

use async_graphql::indexmap::IndexMap;
use async_graphql::registry::{
    __DirectiveLocation as Location, MetaDirective, MetaDirectiveInvocation, MetaType, Registry,
};
use async_graphql::{Name, Value};

use super::meta::{add_enum, directive_argument};
use crate::store::db::reads::Hint;

const NAME: &str = "cacheControl";
const SCOPE: &str = "CacheControlScope";

/// Adds the directive and the enum of its scopes.
pub(super) fn add_cache_control(registry: &mut Registry) {
    let scopes = [
        ("PUBLIC", "Everyone of the same role and the same projects gets the same answer."),
        ("PRIVATE", "It is about the person who asks, and nobody else gets it."),
    ];
    let scopes = scopes.map(|(name, doc)| (name.to_owned(), doc.to_owned()));
    add_enum(registry, SCOPE, "Who may get the same answer from a cache.", scopes);
    let args =
        [("maxAge", "Int"), ("scope", SCOPE), ("staleWhileRevalidate", "Int"), ("staleIfError", "Int")];
    let args = args.map(|(name, ty)| directive_argument(name, ty));
    registry.add_directive(MetaDirective {
        name: NAME.to_owned(),
        description: Some(
            "How old an answer may be that shows this; of all that an answer shows the strictest word counts. \
             What has changed is never served from the cache, whatever stands here. It is kept for `maxAge` seconds; \
             for `staleWhileRevalidate` seconds after that it is shown while it is made anew; when nothing newer can be \
             had it may be `staleIfError` seconds old. Others get the same answer unless `scope` is PRIVATE."
                .to_owned(),
        ),
        locations: vec![Location::OBJECT],
        args: args.into_iter().collect(),
        is_repeatable: false,
        visible: None,
        composable: None,
    });
}

/// Says it of a type that is in the registry, if there is anything to be said.
pub(super) fn add_hint(registry: &mut Registry, name: &str, hint: Hint, personal: bool) {
    let said = invocation(hint, personal);
    if let Some(MetaType::Object { directive_invocations, .. }) = registry.types.get_mut(name) {
        directive_invocations.extend(said);
    }
}

/// The directive; `None` if there is nothing to be said.
fn invocation(hint: Hint, personal: bool) -> Option<MetaDirectiveInvocation> {
    let Hint { max_age_s, stale_while_revalidate_s, stale_if_error_s } = hint;
    let seconds = |seconds: u32| (seconds > 0).then(|| Value::from(seconds));
    let args: IndexMap<String, Value> = [
        ("maxAge", max_age_s.map(Value::from)),
        ("scope", personal.then(|| Value::Enum(Name::new("PRIVATE")))),
        ("staleWhileRevalidate", seconds(stale_while_revalidate_s)),
        ("staleIfError", seconds(stale_if_error_s)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect();
    (!args.is_empty()).then(|| MetaDirectiveInvocation { name: NAME.to_owned(), args })
}
