//! Conditions on rows, as a tree, and their SQL. Conditions on related rows see only what the viewer may see, so
//! nobody can find out by filtering what they may not read.

use crate::model::entity::{Column, Relation, RelationKind, TypeId};
use crate::model::graph;
use crate::model::select::Scope;
use crate::store::db::sql::{Bind, Sql};

/// A condition on a row of one type.
#[derive(Debug, Clone)]
pub enum Filter {
    /// All hold; an empty list holds.
    And(Vec<Self>),
    /// One holds at least; an empty list does not.
    Or(Vec<Self>),
    /// It does not hold. NULL makes a condition fail, not unknown: a row satisfies either `x` or `not x`.
    Not(Box<Self>),
    /// A test of a column.
    Column(&'static Column, Test),
    /// A test of the related rows.
    Relation(&'static Relation, Quantifier, Box<Self>),
}

/// A test of one value.
#[derive(Debug, Clone)]
pub enum Test {
    /// `=`, `<`, `<=`, `>`, `>=` or `is distinct from`
    Compare(&'static str, Bind),
    /// One of these (an array).
    In(Bind),
    /// NULL, or not.
    IsNull(bool),
    /// Contains this text, in any letter case.
    Contains(String),
    /// Begins with this text, in any letter case.
    StartsWith(String),
    /// A JSON value that contains this one.
    JsonContains(serde_json::Value),
    /// A JSON object with this key, or a list of texts with this text.
    Has(String),
    /// A list of texts with one of these.
    HasAny(Vec<String>),
    /// A list of texts with all of these.
    HasAll(Vec<String>),
}

/// Which of the related rows must satisfy a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantifier {
    /// At least one.
    Some,
    /// None.
    None,
    /// Every one; holds if there is none.
    Every,
}

impl Filter {
    /// Writes the condition for the row that SQL calls `t`.
    pub(super) fn write(&self, scope: &mut Scope<'_>, t: &str, sql: &mut Sql) {
        match self {
            Self::And(all) => join(all, " and ", "true", scope, t, sql),
            Self::Or(any) => join(any, " or ", "false", scope, t, sql),
            Self::Not(inner) => {
                sql.push("((");
                inner.write(scope, t, sql);
                sql.push(") is not true)");
            }
            Self::Column(column, test) => test.write(column, t, sql),
            Self::Relation(relation, quantifier, inner) => {
                sql.push(if *quantifier == Quantifier::Some { "exists (" } else { "not exists (" });
                let wrong = Self::Not(inner.clone());
                let inner = if *quantifier == Quantifier::Every { &wrong } else { inner.as_ref() };
                write_related(relation, scope, t, inner, sql);
                sql.push(")");
            }
        }
    }
}

fn join(filters: &[Filter], word: &str, empty: &str, scope: &mut Scope<'_>, t: &str, sql: &mut Sql) {
    if filters.is_empty() {
        sql.push(empty);
        return;
    }
    sql.push("(");
    for (n, filter) in filters.iter().enumerate() {
        if n > 0 {
            sql.push(word);
        }
        filter.write(scope, t, sql);
    }
    sql.push(")");
}

/// `select from` the visible related rows of the row `t` that satisfy `filter`.
fn write_related(relation: &Relation, scope: &mut Scope<'_>, t: &str, filter: &Filter, sql: &mut Sql) {
    let inner = scope.alias();
    sql.push("select");
    scope.write_table(relation.target, &inner, sql);
    sql.push(" and ");
    match &relation.kind {
        RelationKind::One { key } => {
            let owner = owner_of(relation);
            let key = graph().types[owner].columns[*key].sql.replace("{t}", t);
            sql.push(&format!("{inner}.id = {key}"));
        }
        RelationKind::Many { join, .. } => {
            sql.push(&join.replace("{t}", &inner).replace("{k}", &format!("{t}.id")));
        }
        // These are no conditions; the schema has no filter for them.
        RelationKind::Lineage | RelationKind::Groups | RelationKind::Hits { .. } => {
            sql.push("false");
        }
    }
    sql.push(" and ");
    filter.write(scope, &inner, sql);
    if let RelationKind::Many { join, .. } = relation.kind
        && join.contains("(select ")
    {
        // Keeps the planner from making a join of it whose condition is the subselect: it would try every pair of
        // rows (18 s for `supporting` of 3,500 pieces of evidence, against 11 ms).
        sql.push(" offset 0");
    }
}

fn owner_of(relation: &Relation) -> TypeId {
    let owns =
        |ty: &crate::model::entity::Type| ty.relations.iter().any(|other| std::ptr::eq(other, relation));
    graph().types.iter().position(owns).unwrap_or_default()
}

impl Test {
    fn write(&self, column: &Column, t: &str, sql: &mut Sql) {
        let value = column.sql.replace("{t}", t);
        match self {
            Self::Compare(operator, bind) => {
                sql.push(&format!("{value} {operator} ")).bind(bind.clone());
            }
            Self::In(bind) => {
                sql.push(&format!("{value} = any(")).bind(bind.clone()).push(")");
            }
            Self::IsNull(true) => {
                sql.push(&format!("{value} is null"));
            }
            Self::IsNull(false) => {
                sql.push(&format!("{value} is not null"));
            }
            Self::Contains(text) => {
                sql.push(&format!("{value} ilike ")).bind(Bind::Text(format!("%{}%", escape_like(text))));
            }
            Self::StartsWith(text) => {
                sql.push(&format!("{value} ilike ")).bind(Bind::Text(format!("{}%", escape_like(text))));
            }
            Self::JsonContains(json) => {
                sql.push(&format!("{value} @> ")).bind(Bind::Json(json.clone()));
            }
            Self::Has(text) => {
                if column.ty == crate::model::entity::ColumnType::Json {
                    sql.push(&format!("{value} ? ")).bind(Bind::Text(text.clone()));
                } else {
                    // `@>` rather than `= any()`: only the former is served by the GIN index.
                    sql.push(&format!("{value} @> ")).bind(Bind::Texts(vec![text.clone()]));
                }
            }
            Self::HasAny(texts) => {
                sql.push(&format!("{value} && ")).bind(Bind::Texts(texts.clone()));
            }
            Self::HasAll(texts) => {
                sql.push(&format!("{value} @> ")).bind(Bind::Texts(texts.clone()));
            }
        }
    }
}

fn escape_like(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '%' | '_' | '\\') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}
