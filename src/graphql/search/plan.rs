//! The plan of a search: its arguments, checked, and what is to be written of its hits.

use async_graphql::Value;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::graphql::arguments::{items, read_list, read_name, read_size, read_text, read_uuid};
use crate::graphql::document::Selected;
use crate::graphql::filter::read_filter;
use crate::graphql::plan::{ConnectionField, ConnectionPlan, EdgeField, Planner, RelationPlan, Shape, Slot};
use crate::graphql::search::snippet::{DEFAULT_LENGTH, MAX_LENGTH};
use crate::model::cursor::CursorKey;
use crate::model::entity::{Column, Searched, TypeId};
use crate::model::filter::{Filter, Test};
use crate::model::graph;
use crate::model::page::{DEFAULT_PAGE_SIZE, Page};
use crate::model::search::{Asked, FACETS};
use crate::model::select::by_ids;
use crate::store::db::sql::Sql;

/// Characters of a question at most.
pub(crate) const MAX_QUERY: usize = 2_000;
/// Numbers of a vector at most; the index says how many it must be.
const MAX_VECTOR: usize = 4_096;
/// Examples of each kind at most.
const MAX_EXAMPLES: usize = 20;
/// Hits of a group unless the client says otherwise, and at most.
pub(crate) const GROUP_HITS: (u32, u32) = (3, 20);
/// Hits of a row unless the client says otherwise.
pub(crate) const RELATED: u32 = 10;
/// Characters of an answer that a budget may allow.
const BUDGET: std::ops::RangeInclusive<u32> = 200..=1_000_000;

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Hybrid,
    Semantic,
    Lexical,
}

/// What hits are to be like.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    Text(String),
    Vector(Vec<f32>),
    Examples {
        like: Vec<Uuid>,
        unlike: Vec<Uuid>,
    },
    /// Like the row that it is asked of.
    Owner,
}

/// What hits of a group share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupBy {
    Task,
    Chain,
}

/// A search as the client wants it.
pub(crate) struct Question {
    /// Among what.
    pub(crate) searched: &'static Searched,
    pub(crate) wanted: Wanted,
    pub(crate) mode: Mode,
    /// The client's filter and domains.
    pub(crate) filter: Option<Filter>,
    pub(crate) diversity: Option<f32>,
    pub(crate) size: usize,
    pub(crate) asked: Asked,
    /// What signs its cursors.
    pub(crate) cursors: CursorKey,
    pub(crate) seen: Vec<Uuid>,
    pub(crate) group_by: Option<GroupBy>,
    pub(crate) budget: Option<usize>,
}

/// What is written of a search besides rows.
#[derive(Default)]
pub(crate) struct SearchPlan {
    /// The cells of title and content, if snippets or terms are wanted.
    pub(crate) text: Option<(usize, usize)>,
    /// Characters of a snippet.
    pub(crate) snippet: usize,
    pub(crate) wants_cursor: bool,
    pub(crate) wants_more: bool,
    /// Counts what hits have in common.
    pub(crate) facets: Option<Sql>,
    /// The hits per group, and what is loaded for the groups.
    pub(crate) groups: Option<(usize, Vec<RelationPlan>)>,
    /// The cell of the task, if hits are grouped by it.
    pub(crate) task: Option<usize>,
    /// The column and the cell in which hits have the id of the row that they are asked of.
    pub(crate) owner: Option<(&'static Column, usize)>,
}

/// A field of what a search says besides rows.
pub(crate) enum SearchField {
    Typename(&'static str),
    Score,
    Value,
    Count,
    /// A facet with its values.
    Facet(usize, Vec<Slot<Self>>),
    /// The place of a relation of the groups.
    Relation(usize),
    /// So many of the group, and what of each.
    Hits(usize, Vec<Slot<EdgeField>>),
    LeftOut,
    SnippetLength,
    After,
}

impl Planner<'_> {
    /// Plans the search of an entity.
    pub(crate) fn search(
        &self,
        ty: TypeId,
        searched: &'static Searched,
        selected: &Selected<'_>,
    ) -> Result<Shape> {
        let wanted = self.wanted(searched, selected)?;
        let question = self.question(ty, searched, wanted, DEFAULT_PAGE_SIZE, selected)?;
        let page = Page { filter: question.filter.clone(), ..Page::first(self.max_page_size, Vec::new()) };
        let [name, edge_name] = ["Connection", "Edge"].map(|kind| format!("Search{}{kind}", searched.entity));
        let mut connection = self.connection_of(name, edge_name, ty, page, selected);
        // Hits have cursors of their own.
        let wants_cursor = connection.cursor.take().is_some();
        let mut plan = connection.search.take().unwrap_or_default();
        plan.wants_cursor |= wants_cursor;
        plan.wants_more = connection.page.peek;
        if let Some(budget) = question.budget {
            // Half of the budget for the snippets of all hits.
            let share = budget / (2 * question.size.max(1));
            plan.snippet = plan.snippet.min(share.max(40));
        }
        if question.group_by == Some(GroupBy::Task) {
            let column = graph().types[ty].column("taskId").unwrap_or_default();
            plan.task = Some(connection.projection.add(&graph().types[ty].columns[column]));
        }
        connection.search = Some(plan);
        let sql = by_ids(self.viewer, ty, &connection.projection, connection.page.filter.as_ref());
        Ok(Shape::Search { question: Box::new(question), sql, connection })
    }

    /// Plans the best hits of each row of a level: those whose `owner` it is, or those like it.
    pub(crate) fn hits(&self, ty: TypeId, owner: Option<usize>, selected: &Selected<'_>) -> Result<Shape> {
        let missing = || Error::internal("hits of an entity that is not searched");
        let searched =
            graph().types[ty].table.as_ref().and_then(|table| table.searched).ok_or_else(missing)?;
        let wanted = if owner.is_some() { self.wanted(searched, selected)? } else { Wanted::Owner };
        let question = self.question(ty, searched, wanted, RELATED, selected)?;
        let page = Page { filter: question.filter.clone(), ..Page::first(self.max_page_size, Vec::new()) };
        let mut connection = ConnectionPlan::new(String::new(), format!("{}Hit", searched.entity), page);
        let fields = self.edges(ty, selected, &mut connection, &mut false);
        if let Some(owner) = owner {
            let column = &graph().types[ty].columns[owner];
            let cell = connection.projection.add(column);
            connection.search.get_or_insert_default().owner = Some((column, cell));
        }
        let sql = by_ids(self.viewer, ty, &connection.projection, connection.page.filter.as_ref());
        Ok(Shape::Hits { question: Box::new(question), sql, connection, fields })
    }

    fn question(
        &self,
        ty: TypeId,
        searched: &'static Searched,
        wanted: Wanted,
        default_size: u32,
        selected: &Selected<'_>,
    ) -> Result<Question> {
        let argument = |name: &str| self.argument(selected, name);
        let mode = match argument("mode").and_then(read_name).as_deref() {
            Some("SEMANTIC") => Mode::Semantic,
            Some("LEXICAL") => Mode::Lexical,
            _ => Mode::Hybrid,
        };
        let mode = match (&wanted, mode) {
            (Wanted::Text(_), mode) => mode,
            (_, Mode::Lexical) => return Err(Error::bad_input("mode", "is LEXICAL, which needs a query")),
            _ => Mode::Semantic,
        };
        let mut filters = Vec::new();
        if let Some(filter) = argument("filter") {
            filters.push(read_filter(ty, filter, "filter")?);
        }
        if let Some(domains) = argument("domains") {
            let column = &graph().types[ty].columns[graph().types[ty].column("domain").unwrap_or_default()];
            filters.push(Filter::Column(column, Test::In(read_list(column.ty, domains, "domains")?)));
        }
        let number = |name: &str, max| argument(name).map(|value| read_size(value, name, max)).transpose();
        let size =
            number("first", self.max_page_size)?.unwrap_or_else(|| default_size.min(self.max_page_size));
        let budget = number("budget", *BUDGET.end())?;
        if budget.is_some_and(|budget| !BUDGET.contains(&budget)) {
            return Err(Error::bad_input(
                "budget",
                format!("must be between {} and {}", BUDGET.start(), BUDGET.end()),
            ));
        }
        let group_by = argument("groupBy").and_then(read_name);
        let group_by = group_by.map(|name| if name == "TASK" { GroupBy::Task } else { GroupBy::Chain });
        // Everything that decides which hits come, and in which order.
        let asked = [searched.argument, "vector", "like", "unlike", "mode", "filter", "domains", "diversity"];
        let asked = asked.map(|name| argument(name).map_or_else(String::new, |value| value.to_string()));
        let asked = Asked::new(&format!("{}\u{0}{}", searched.field, asked.join("\u{0}")));
        if budget.is_some() && group_by.is_some() {
            return Err(Error::bad_input("budget", "cannot be given with groupBy"));
        }
        let after = argument("after").map(|value| match value {
            Value::String(cursor) => asked.seen(&cursor, self.cursors),
            _ => Err(Error::bad_input("after", "is not a String")),
        });
        if after.is_some() && group_by.is_some() {
            return Err(Error::bad_input("after", "cannot be given with groupBy: groups have no pages"));
        }
        Ok(Question {
            searched,
            wanted,
            mode,
            filter: (!filters.is_empty()).then_some(Filter::And(filters)),
            diversity: argument("diversity").map(read_diversity).transpose()?,
            size: usize::try_from(size).unwrap_or(usize::MAX),
            asked,
            cursors: self.cursors.clone(),
            seen: after.transpose()?.unwrap_or_default(),
            group_by,
            budget: budget.and_then(|budget| usize::try_from(budget).ok()),
        })
    }

    fn wanted(&self, searched: &'static Searched, selected: &Selected<'_>) -> Result<Wanted> {
        let argument = |name: &str| self.argument(selected, name);
        let examples = |name: &str| {
            let ids = argument(name).map(items).unwrap_or_default();
            if ids.len() > MAX_EXAMPLES {
                return Err(Error::bad_input(name, format!("has more than {MAX_EXAMPLES} values")));
            }
            ids.iter()
                .enumerate()
                .map(|(n, id)| read_uuid(id, &format!("{name}.{n}")))
                .collect::<Result<Vec<_>>>()
        };
        let unlike = examples("unlike")?;
        let wanted = match (argument(searched.argument), argument("vector"), argument("like")) {
            (Some(query), None, None) => {
                let query = read_text(query, searched.argument)?;
                if query.trim().is_empty() || query.chars().count() > MAX_QUERY {
                    let text = format!("must have between 1 and {MAX_QUERY} characters");
                    return Err(Error::bad_input(searched.argument, text));
                }
                Wanted::Text(query)
            }
            (None, Some(vector), None) => Wanted::Vector(read_vector(vector)?),
            (None, None, Some(_)) => {
                let like = examples("like")?;
                if like.is_empty() {
                    return Err(Error::bad_input("like", "is empty"));
                }
                return Ok(Wanted::Examples { like, unlike });
            }
            _ => {
                return Err(Error::bad_input(
                    "query",
                    "or vector or like must be given, and only one of them",
                ));
            }
        };
        if unlike.is_empty() { Ok(wanted) } else { Err(Error::bad_input("unlike", "needs like")) }
    }

    /// A field that only the connection of a search has.
    pub(crate) fn search_field(
        &self,
        ty: TypeId,
        field: &Selected<'_>,
        plan: &mut ConnectionPlan,
    ) -> ConnectionField {
        match field.name() {
            "facets" => {
                let filter = plan.page.filter.as_ref();
                let sql = crate::model::search::facets(self.viewer, filter);
                plan.search.get_or_insert_default().facets = Some(sql);
                ConnectionField::Facets(self.search_fields(field, "SearchFacets", &mut |inner| {
                    let facet = FACETS.iter().position(|(name, _)| *name == inner.name()).unwrap_or_default();
                    let values = self.search_fields(inner, "SearchFacet", &mut |value| match value.name() {
                        "value" => SearchField::Value,
                        _ => SearchField::Count,
                    });
                    SearchField::Facet(facet, values)
                }))
            }
            "groups" => {
                let mut most = 0;
                let mut relations = Vec::new();
                let fields =
                    self.search_fields(field, "SearchEvidenceGroup", &mut |inner| match inner.name() {
                        "score" => SearchField::Score,
                        "hits" => {
                            let first = self.argument(inner, "first");
                            let first = first.and_then(|value| read_size(value, "first", GROUP_HITS.1).ok());
                            let first = usize::try_from(first.unwrap_or(GROUP_HITS.0)).unwrap_or(usize::MAX);
                            most = most.max(first);
                            SearchField::Hits(first, self.edges(ty, inner, plan, &mut false))
                        }
                        name => {
                            let ty = if name == "task" { "Task" } else { "EvidenceChain" };
                            let ty = graph().type_by_name(ty).unwrap_or_default();
                            let (projection, object) = self.lone_object(ty, inner);
                            let sql = by_ids(self.viewer, ty, &projection, None);
                            // The group's own row: cell 0 is the task's id and cell 1 the chain's.
                            let key = usize::from(name != "task");
                            relations.push(RelationPlan { key, shape: Shape::One { sql, object } });
                            SearchField::Relation(relations.len() - 1)
                        }
                    });
                plan.search.get_or_insert_default().groups = Some((most, relations));
                ConnectionField::Groups(fields)
            }
            "cut" => {
                ConnectionField::Cut(self.search_fields(
                    field,
                    "SearchCut",
                    &mut |inner| match inner.name() {
                        "hits" => SearchField::LeftOut,
                        "snippetLength" => SearchField::SnippetLength,
                        _ => {
                            plan.search.get_or_insert_default().wants_cursor = true;
                            SearchField::After
                        }
                    },
                ))
            }
            _ => ConnectionField::Degraded,
        }
    }

    fn search_fields(
        &self,
        of: &Selected<'_>,
        name: &'static str,
        plan: &mut dyn FnMut(&Selected<'_>) -> SearchField,
    ) -> Vec<Slot<SearchField>> {
        let fields = self.document.collect(&of.sets(), &|condition| condition == name);
        let slots = fields.iter().map(|field| {
            let typename = field.name() == "__typename";
            Slot::new(field, if typename { SearchField::Typename(name) } else { plan(field) })
        });
        slots.collect()
    }

    /// A field that only the edge of a search has.
    pub(crate) fn hit_field(&self, ty: TypeId, field: &Selected<'_>, plan: &mut ConnectionPlan) -> EdgeField {
        let value = match field.name() {
            "score" => return EdgeField::Score,
            "dense" => return EdgeField::Dense,
            "denseRank" => return EdgeField::DenseRank,
            "lexical" => return EdgeField::Lexical,
            "lexicalRank" => return EdgeField::LexicalRank,
            "terms" => EdgeField::Terms,
            _ => EdgeField::Snippet,
        };
        let meta = &graph().types[ty];
        let mut cell = |name: &str| plan.projection.add(&meta.columns[meta.column(name).unwrap_or_default()]);
        let text =
            meta.table.as_ref().and_then(|table| table.searched).map_or(["id"; 2], |searched| searched.text);
        let [title, body] = text.map(&mut cell);
        let length =
            self.argument(field, "length").and_then(|value| read_size(value, "length", MAX_LENGTH).ok());
        let length = usize::try_from(length.unwrap_or(DEFAULT_LENGTH)).unwrap_or(usize::MAX);
        let search = plan.search.get_or_insert_default();
        search.text = Some((title, body));
        search.snippet = search.snippet.max(if matches!(value, EdgeField::Snippet) { length } else { 0 });
        value
    }
}

fn read_vector(value: Value) -> Result<Vec<f32>> {
    let numbers = items(value);
    if numbers.is_empty() || numbers.len() > MAX_VECTOR {
        return Err(Error::bad_input("vector", format!("must have between 1 and {MAX_VECTOR} numbers")));
    }
    let number = |value: &Value| match value {
        Value::Number(number) => number.as_f64(),
        _ => None,
    };
    #[allow(clippy::cast_possible_truncation, reason = "the index has numbers of 32 bits")]
    let vector =
        numbers.iter().map(|value| number(value).map(|number| number as f32)).collect::<Option<Vec<_>>>();
    let vector = vector.ok_or_else(|| Error::bad_input("vector", "has something that is not a number"))?;
    if vector.iter().all(|number| number.is_finite()) && vector.iter().any(|number| *number != 0.0) {
        Ok(vector)
    } else {
        Err(Error::bad_input("vector", "has a number that is too large, or zeros only"))
    }
}

fn read_diversity(value: Value) -> Result<f32> {
    let number = match &value {
        Value::Number(number) => number.as_f64(),
        _ => None,
    };
    #[allow(clippy::cast_possible_truncation, reason = "it needs no more digits")]
    let number = number.filter(|number| (0.0..=1.0).contains(number)).map(|number| number as f32);
    number.ok_or_else(|| Error::bad_input("diversity", "must be between 0 and 1"))
}
