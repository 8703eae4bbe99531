//! The executed operation as the specification sees it: fields collected and merged, directives applied,
//! variables filled in.

use std::collections::HashMap;

use async_graphql::parser::types::{
    Directive, Field, FragmentDefinition, OperationDefinition, Selection, SelectionSet,
};
use async_graphql::{Name, Positioned, Value, Variables};
use async_graphql_value::Value as Literal;

/// One operation with all that it refers to.
#[derive(Clone, Copy)]
pub(crate) struct Document<'a> {
    pub(crate) operation: &'a OperationDefinition,
    pub(crate) fragments: &'a HashMap<Name, Positioned<FragmentDefinition>>,
    /// With the defaults of those that were not given.
    pub(crate) variables: &'a Variables,
}

/// All fields of a selection that share a response key; their selections are one.
pub(crate) struct Selected<'a> {
    pub(crate) key: &'a str,
    pub(crate) fields: Vec<&'a Positioned<Field>>,
}

impl<'a> Selected<'a> {
    /// The field whose name and arguments count; validation has seen that the others agree.
    pub(crate) fn first(&self) -> &'a Positioned<Field> {
        self.fields[0]
    }

    pub(crate) fn name(&self) -> &'a str {
        self.first().node.name.node.as_str()
    }

    pub(crate) fn sets(&self) -> Vec<&'a SelectionSet> {
        self.fields.iter().map(|field| &field.node.selection_set.node).collect()
    }
}

impl<'a> Document<'a> {
    /// CollectFields of the specification: the fields in the order of their first appearance. `applies` says
    /// whether a type condition holds for the object.
    pub(crate) fn collect(
        &self,
        sets: &[&'a SelectionSet],
        applies: &dyn Fn(&str) -> bool,
    ) -> Vec<Selected<'a>> {
        let mut collected = Collected { fields: Vec::new(), visited: Vec::new() };
        for set in sets {
            self.collect_set(set, applies, &mut collected);
        }
        collected.fields
    }

    fn collect_set(&self, set: &'a SelectionSet, applies: &dyn Fn(&str) -> bool, into: &mut Collected<'a>) {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => {
                    if self.is_included(&field.node.directives) {
                        into.add(field);
                    }
                }
                Selection::InlineFragment(inline) => {
                    let condition = inline.node.type_condition.as_ref();
                    if self.is_included(&inline.node.directives)
                        && condition.is_none_or(|condition| applies(condition.node.on.node.as_str()))
                    {
                        self.collect_set(&inline.node.selection_set.node, applies, into);
                    }
                }
                Selection::FragmentSpread(spread) => {
                    let name = spread.node.fragment_name.node.as_str();
                    if !self.is_included(&spread.node.directives) || into.visited.contains(&name) {
                        continue;
                    }
                    into.visited.push(name);
                    if let Some(fragment) = self.fragments.get(name)
                        && applies(fragment.node.type_condition.node.on.node.as_str())
                    {
                        self.collect_set(&fragment.node.selection_set.node, applies, into);
                    }
                }
            }
        }
    }

    /// `@skip` and `@include`.
    fn is_included(&self, directives: &[Positioned<Directive>]) -> bool {
        directives.iter().all(|directive| {
            let wanted = match directive.node.name.node.as_str() {
                "include" => true,
                "skip" => false,
                _ => return true,
            };
            let condition = directive.node.get_argument("if").and_then(|value| self.value(&value.node));
            condition == Some(Value::Boolean(wanted))
        })
    }

    /// An argument of a field; `None` if it is absent or its variable was not given.
    pub(crate) fn argument(&self, field: &Field, name: &str) -> Option<Value> {
        field.get_argument(name).and_then(|value| self.value(&value.node))
    }

    /// Fills variables in. `None` stands for a variable that was not given and has no default.
    pub(crate) fn value(&self, literal: &Literal) -> Option<Value> {
        Some(match literal {
            Literal::Variable(name) => return self.variables.get(name).cloned(),
            Literal::List(items) => {
                Value::List(items.iter().map(|item| self.value(item).unwrap_or_default()).collect())
            }
            Literal::Object(fields) => Value::Object(
                fields.iter().filter_map(|(name, value)| Some((name.clone(), self.value(value)?))).collect(),
            ),
            Literal::Null => Value::Null,
            Literal::Number(number) => Value::Number(number.clone()),
            Literal::String(text) => Value::String(text.clone()),
            Literal::Boolean(truth) => Value::Boolean(*truth),
            Literal::Binary(bytes) => Value::Binary(bytes.clone()),
            Literal::Enum(name) => Value::Enum(name.clone()),
        })
    }
}

struct Collected<'a> {
    fields: Vec<Selected<'a>>,
    visited: Vec<&'a str>,
}

impl<'a> Collected<'a> {
    fn add(&mut self, field: &'a Positioned<Field>) {
        let key = field.node.response_key().node.as_str();
        match self.fields.iter_mut().find(|selected| selected.key == key) {
            Some(selected) => selected.fields.push(field),
            None => self.fields.push(Selected { key, fields: vec![field] }),
        }
    }
}
