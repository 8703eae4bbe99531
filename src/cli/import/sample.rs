//! The sample: the advisories of the RustSec database as the work of a small company that triages them.
//!
//! Every text comes from an advisory; what is added is only the rules of `rules` and the people of `people`.

mod advisory;
pub(super) mod people;
mod rules;

use std::collections::{HashMap, HashSet};

use self::advisory::Advisory;
use crate::error::{Error, Result};
use crate::model::import::record::Record;
use crate::model::import::row::EvidenceRelation;

const ADVISORIES: &str = include_str!("../../../sample/rustsec-advisories.jsonl");

/// All rows, each after those that it refers to.
pub(super) fn records() -> Result<Vec<Record>> {
    let advisories = advisories()?;
    let mut records = people::records();
    for advisory in &advisories {
        advisory.records(&mut records);
    }
    relate(&advisories, &mut records);
    Ok(records)
}

fn advisories() -> Result<Vec<Advisory>> {
    ADVISORIES.lines().map(|line| serde_json::from_str(line).map_err(Error::internal)).collect()
}

/// Advisories name related ones by any of their names.
fn relate(advisories: &[Advisory], records: &mut Vec<Record>) {
    let mut by_name: HashMap<&str, &Advisory> = HashMap::new();
    for advisory in advisories {
        for alias in &advisory.aliases {
            by_name.insert(alias, advisory);
        }
    }
    by_name.extend(advisories.iter().map(|advisory| (advisory.id.as_str(), advisory)));
    let mut pairs = HashSet::new();
    for advisory in advisories {
        for name in &advisory.related {
            let other = by_name.get(name.as_str()).filter(|other| other.id != advisory.id);
            // One advisory may be named twice, by two of its names.
            let Some(other) = other.filter(|other| pairs.insert((&advisory.id, &other.id))) else { continue };
            records.push(Record::EvidenceRelation(EvidenceRelation {
                from: advisory.text_id(),
                to: other.text_id(),
                kind: "related".to_owned(),
                strength: 0.5,
                note: Some(format!("{} names {name} as related.", advisory.id)),
                created_by_user: None,
                created_by_agent: Some("orchestrator".to_owned()),
                created_at: advisory.published(),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cli::import::check::check;
    use crate::model::import::record::Kind;

    #[test]
    fn every_row_is_good_and_refers_to_earlier_rows_or_its_own_batch() {
        let mut names: HashSet<(Kind, String)> = HashSet::new();
        let mut ids = HashSet::new();
        for record in records().unwrap() {
            check(&record).unwrap_or_else(|problem| panic!("{problem}: {record:?}"));
            for reference in record.references() {
                assert!(names.contains(&(reference.kind, reference.external_id.to_owned())), "{reference:?}");
            }
            names.extend(record.external_id().map(|name| (record.kind(), name.to_owned())));
            assert!(ids.insert(record.id()), "twice: {record:?}");
        }
    }

    #[test]
    fn the_sample_has_all_kinds_of_rows() {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for record in records().unwrap() {
            *counts.entry(record.kind().name()).or_default() += 1;
        }
        assert_eq!((counts["user"], counts["project"], counts["agent"]), (5, 5, 10));
        assert_eq!((counts["task"], counts["chain"]), (1204, 1204));
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::TaskAttachment) {
            assert!(counts.contains_key(kind.name()), "{} in {counts:?}", kind.name());
        }
    }

    #[test]
    fn statuses_and_domains_are_all_there() {
        let mut statuses: BTreeMap<String, usize> = BTreeMap::new();
        let mut domains: BTreeMap<String, usize> = BTreeMap::new();
        let mut priorities: BTreeMap<i32, usize> = BTreeMap::new();
        for record in records().unwrap() {
            match record {
                Record::Task(task) => {
                    *statuses.entry(task.status).or_default() += 1;
                    *priorities.entry(task.priority).or_default() += 1;
                }
                Record::Evidence(evidence) => *domains.entry(evidence.domain).or_default() += 1,
                _ => {}
            }
        }
        assert_eq!(statuses["cancelled"], 13);
        assert!(statuses["completed"] > 700 && statuses["pending"] > 100 && statuses["processing"] > 50);
        assert_eq!(domains.len(), 4, "{domains:?}");
        assert_eq!(priorities.keys().copied().collect::<Vec<_>>(), [2, 3, 4, 5], "{priorities:?}");
    }
}
