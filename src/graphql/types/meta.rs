//! Entries of async-graphql's registry, which has many fields that this schema leaves at rest.

use async_graphql::indexmap::IndexSet;
use async_graphql::registry::{Deprecation, MetaEnumValue, MetaField, MetaInputValue, MetaType, Registry};

/// Adds a scalar.
pub(super) fn add_scalar(registry: &mut Registry, name: &str, doc: &str, url: Option<&str>) {
    registry.types.insert(
        name.to_owned(),
        MetaType::Scalar {
            name: name.to_owned(),
            description: Some(doc.to_owned()),
            // The values themselves are checked where they are read, with errors that name the place.
            is_valid: None,
            visible: None,
            inaccessible: false,
            tags: Vec::new(),
            specified_by_url: url.map(str::to_owned),
            directive_invocations: Vec::new(),
            requires_scopes: Vec::new(),
        },
    );
}

/// Adds an enum: names with descriptions.
pub(super) fn add_enum(
    registry: &mut Registry,
    name: &str,
    doc: &str,
    values: impl IntoIterator<Item = (String, String)>,
) {
    let values = values.into_iter().map(|(name, doc)| {
        let value = MetaEnumValue {
            name: name.clone(),
            description: described(&doc),
            deprecation: Deprecation::NoDeprecated,
            visible: None,
            inaccessible: false,
            tags: Vec::new(),
            directive_invocations: Vec::new(),
        };
        (name, value)
    });
    registry.types.insert(
        name.to_owned(),
        MetaType::Enum {
            name: name.to_owned(),
            description: described(doc),
            enum_values: values.collect(),
            visible: None,
            inaccessible: false,
            tags: Vec::new(),
            rust_typename: None,
            directive_invocations: Vec::new(),
            requires_scopes: Vec::new(),
        },
    );
}

/// Adds an input object.
pub(crate) fn add_input(
    registry: &mut Registry,
    name: &str,
    doc: &str,
    fields: impl IntoIterator<Item = MetaInputValue>,
) {
    registry.types.insert(
        name.to_owned(),
        MetaType::InputObject {
            name: name.to_owned(),
            description: described(doc),
            input_fields: fields.into_iter().map(|field| (field.name.clone(), field)).collect(),
            visible: None,
            inaccessible: false,
            tags: Vec::new(),
            rust_typename: None,
            oneof: false,
            directive_invocations: Vec::new(),
        },
    );
}

/// Adds an object type.
pub(crate) fn add_object(
    registry: &mut Registry,
    name: &str,
    doc: &str,
    fields: impl IntoIterator<Item = MetaField>,
) {
    registry.types.insert(
        name.to_owned(),
        MetaType::Object {
            name: name.to_owned(),
            description: described(doc),
            fields: fields.into_iter().map(|field| (field.name.clone(), field)).collect(),
            cache_control: async_graphql::CacheControl::default(),
            extends: false,
            shareable: false,
            resolvable: true,
            keys: None,
            visible: None,
            inaccessible: false,
            interface_object: false,
            tags: Vec::new(),
            is_subscription: false,
            rust_typename: None,
            directive_invocations: Vec::new(),
            requires_scopes: Vec::new(),
        },
    );
}

/// A field.
pub(crate) fn field(
    name: &str,
    doc: &str,
    ty: &str,
    args: impl IntoIterator<Item = MetaInputValue>,
) -> MetaField {
    MetaField {
        name: name.to_owned(),
        description: described(doc),
        args: args.into_iter().map(|argument| (argument.name.clone(), argument)).collect(),
        ty: ty.to_owned(),
        deprecation: Deprecation::NoDeprecated,
        cache_control: async_graphql::CacheControl::default(),
        external: false,
        requires: None,
        provides: None,
        visible: None,
        shareable: false,
        inaccessible: false,
        tags: Vec::new(),
        override_from: None,
        compute_complexity: None,
        directive_invocations: Vec::new(),
        requires_scopes: Vec::new(),
    }
}

/// An argument of a directive. The library writes no descriptions of these into SDL, so they stand in the directive's
/// own.
pub(crate) fn directive_argument(name: &str, ty: &str) -> (String, MetaInputValue) {
    (name.to_owned(), argument(name, ty, ""))
}

/// An argument, or a field of an input object.
pub(crate) fn argument(name: &str, ty: &str, doc: &str) -> MetaInputValue {
    MetaInputValue {
        name: name.to_owned(),
        description: described(doc),
        ty: ty.to_owned(),
        deprecation: Deprecation::NoDeprecated,
        default_value: None,
        visible: None,
        inaccessible: false,
        tags: Vec::new(),
        is_secret: false,
        directive_invocations: Vec::new(),
    }
}

fn described(doc: &str) -> Option<String> {
    (!doc.is_empty()).then(|| doc.to_owned())
}

/// Adds an interface with one field and the objects that have it.
pub(super) fn add_interface(
    registry: &mut Registry,
    name: &str,
    doc: &str,
    field: MetaField,
    of: IndexSet<String>,
) {
    for object in &of {
        registry.add_implements(object, name);
    }
    registry.types.insert(
        name.to_owned(),
        MetaType::Interface {
            name: name.to_owned(),
            description: described(doc),
            fields: [(field.name.clone(), field)].into_iter().collect(),
            possible_types: of,
            extends: false,
            keys: None,
            visible: None,
            inaccessible: false,
            tags: Vec::new(),
            rust_typename: None,
            directive_invocations: Vec::new(),
            requires_scopes: Vec::new(),
        },
    );
}
