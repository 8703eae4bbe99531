//! Writes what a search says besides rows: why a hit is where it is, what hits have in common, and what was cut.

use crate::graphql::level::{PageRows, Pages};
use crate::graphql::plan::{ConnectionField, ConnectionPlan, EdgeField, PageInfoField, Slot};
use crate::graphql::search::plan::SearchField;
use crate::graphql::search::{Found, FoundHit};
use crate::graphql::write::{Writer, Written};
use crate::store::vectors::Stage;

impl<'a> Writer<'a> {
    /// How much of a page fits into the client's budget: the page with as many hits as do, one at least.
    pub(crate) fn fitting(
        &mut self,
        plan: &'a ConnectionPlan,
        pages: &'a Pages,
        page: &PageRows,
    ) -> PageRows {
        let budget = pages.found.as_ref().and_then(|found| found.budget);
        let Some(budget) = budget else { return page.clone() };
        let (start, errors) = (self.json.len(), self.errors.len());
        let mut left = budget;
        let mut len = 0;
        while len < page.len {
            // Written once to be measured, and taken back.
            for slot in &plan.fields {
                let written = match &slot.value {
                    ConnectionField::Edges(fields) => self.edge(plan, fields, pages, page.start + len),
                    ConnectionField::Nodes(object) => {
                        let at = page.start + len;
                        self.object(&plan.objects[*object], &pages.rows[at], at, &pages.objects[*object])
                    }
                    _ => Ok(()),
                };
                // What fails here fails again when it is written for good.
                drop(written);
            }
            let used = String::from_utf8_lossy(&self.json[start..]).chars().count();
            self.json.truncate(start);
            self.errors.truncate(errors);
            if used > left && len > 0 {
                break;
            }
            left = left.saturating_sub(used);
            len += 1;
        }
        PageRows { start: page.start, len, more: page.more || len < page.len, count: page.count }
    }

    /// Writes a field of the connection of a search.
    pub(crate) fn found(
        &mut self,
        plan: &'a ConnectionPlan,
        pages: &'a Pages,
        (page, cut): (&PageRows, usize),
        slot: &'a Slot<ConnectionField>,
    ) -> Written {
        let Some(found) = &pages.found else { return self.raw(b"null") };
        match &slot.value {
            ConnectionField::Degraded => match found.degraded {
                Some(text) => self.text(text),
                None => self.raw(b"null"),
            },
            ConnectionField::Facets(fields) => self.members(fields, |out, slot| match &slot.value {
                SearchField::Facet(facet, fields) => out.facet(found, *facet, fields),
                SearchField::Typename(name) => out.text(name),
                _ => out.raw(b"null"),
            }),
            ConnectionField::Groups(fields) => {
                self.items(found.groups.len(), |out, n| out.group(plan, pages, found, n, fields))
            }
            ConnectionField::Cut(fields) => {
                let snippet = plan.search.as_ref().map_or(0, |search| search.snippet);
                let last = (page.start + page.len).checked_sub(1).and_then(|last| found.hits.get(last));
                self.members(fields, |out, slot| match &slot.value {
                    SearchField::LeftOut => out.json_of(&cut),
                    SearchField::SnippetLength => out.json_of(&snippet),
                    SearchField::After => match last.filter(|_| page.more) {
                        Some(hit) => out.text(&hit.cursor),
                        None => out.raw(b"null"),
                    },
                    _ => out.text("SearchCut"),
                })
            }
            _ => self.raw(b"null"),
        }
    }

    fn facet(&mut self, found: &'a Found, facet: usize, fields: &'a [Slot<SearchField>]) -> Written {
        let values: Vec<_> = found.facets.iter().filter(|(place, _, _)| *place == facet).collect();
        self.items(values.len(), |out, n| {
            let (_, value, count) = values[n];
            out.members(fields, |out, slot| match slot.value {
                SearchField::Value => out.text(value),
                SearchField::Count => out.json_of(count),
                _ => out.text("SearchFacet"),
            })
        })
    }

    fn group(
        &mut self,
        plan: &'a ConnectionPlan,
        pages: &'a Pages,
        found: &'a Found,
        n: usize,
        fields: &'a [Slot<SearchField>],
    ) -> Written {
        let group = &found.groups[n];
        let relations =
            plan.search.as_ref().and_then(|search| search.groups.as_ref()).map(|(_, relations)| relations);
        self.members(fields, |out, slot| match (&slot.value, relations) {
            (SearchField::Score, _) => out.json_of(&group.score),
            (SearchField::Hits(first, fields), _) => out.items(group.hits.len().min(*first), |out, hit| {
                out.edge(plan, fields, pages, group.hits[hit])
            }),
            (SearchField::Relation(relation), Some(relations)) => {
                out.relation(&relations[*relation], &found.of_groups[*relation], n, slot.pos)
            }
            _ => out.text("SearchEvidenceGroup"),
        })
    }

    /// Writes a field of the page's place among the hits.
    pub(crate) fn search_info(&mut self, found: &Found, page: &PageRows, field: &PageInfoField) -> Written {
        let first = (page.len > 0).then_some(page.start);
        let cursor = match field {
            PageInfoField::Typename => return self.text("PageInfo"),
            PageInfoField::HasNextPage => return self.json_of(&page.more),
            PageInfoField::HasPreviousPage => return self.json_of(&found.continued),
            PageInfoField::StartCursor => first,
            PageInfoField::EndCursor => first.map(|first| first + page.len - 1),
        };
        match cursor.and_then(|place| found.hits.get(place)) {
            Some(hit) => self.text(&hit.cursor),
            None => self.raw(b"null"),
        }
    }

    /// Writes a field of a hit.
    pub(crate) fn hit(&mut self, hit: &FoundHit, field: &EdgeField) -> Written {
        let stage = |of: &EdgeField| match of {
            EdgeField::Dense | EdgeField::DenseRank => hit.ranked.dense,
            _ => hit.ranked.sparse,
        };
        match field {
            EdgeField::Score => self.json_of(&hit.ranked.score),
            EdgeField::Terms => self.json_of(&hit.terms),
            EdgeField::Snippet => self.text(&hit.snippet),
            EdgeField::Cursor => self.text(&hit.cursor),
            EdgeField::Dense | EdgeField::Lexical => match stage(field) {
                Some(Stage { score, .. }) => self.json_of(&score),
                None => self.raw(b"null"),
            },
            _ => match stage(field) {
                Some(Stage { rank, .. }) => self.json_of(&rank),
                None => self.raw(b"null"),
            },
        }
    }
}
