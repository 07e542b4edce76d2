//! The cases that are not asserted as they are: two lists, of which each entry has its reason.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::outcome::Outcome;
use crate::run::run;

pub(crate) struct Exceptions {
    deviations: Vec<Json>,
    inexpressible: Vec<Json>,
}

/// Whose cases they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folder {
    /// Ours: each exception is on a list, by name.
    Own,
    /// Another's: cases of the same kind as those on the lists are exceptions too.
    Further,
}

impl Exceptions {
    pub(crate) fn read() -> Exceptions {
        let list = |text: &str| -> Vec<Json> { serde_json::from_str(text).expect("a list of cases") };
        let exceptions = Exceptions {
            deviations: list(include_str!("deviations.json")),
            inexpressible: list(include_str!("inexpressible.json")),
        };
        let entries = || exceptions.deviations.iter().chain(&exceptions.inexpressible);
        assert!(entries().count() < 15, "the lists are for few cases");
        entries().for_each(|entry| assert!(!reason(entry).is_empty(), "{entry} has no reason"));
        for entry in &exceptions.inexpressible {
            let stands_in = entry["compile_error"].as_str().unwrap_or_default();
            assert!(is_compile_error(stands_in), "{entry}: tests/compile_errors/{stands_in}.rs is not there");
        }
        exceptions
    }

    /// Entries for cases that are not among these.
    pub(crate) fn unknown(&self, names: &[&str]) -> Vec<String> {
        let cases = self.deviations.iter().chain(&self.inexpressible).filter_map(|entry| entry["case"].as_str());
        cases.filter(|case| !names.contains(case)).map(str::to_owned).collect()
    }

    pub(crate) fn run(&self, name: &str, case: &Json, folder: Folder) -> Outcome {
        let outcome = self.inexpressible(name, run(case), folder);
        let entry = find(&self.deviations, name, case);
        let counts = || self.deviations.iter().find(|entry| entry["rule"] == "exact_counts");
        let deviating = match entry {
            Some(_) if outcome == Outcome::Passed => return no_exception("deviate"),
            Some(entry) if entry.get("rule").is_none() => Some((patched(case, &entry["instead"]), reason(entry))),
            None if folder == Folder::Own => None,
            Some(_) | None if !matches!(outcome, Outcome::Failed(_)) => None,
            Some(_) | None => counts().and_then(|entry| Some((exact_counts(case)?, reason(entry)))),
        };
        let Some((ours, reason)) = deviating else { return outcome };
        match run(&ours) {
            Outcome::Passed => Outcome::Deviating(reason),
            outcome => outcome,
        }
    }

    /// What a format has come to: where an entry says so, what was compared is not the bytes.
    pub(crate) fn of_format(&self, name: &str, outcome: Outcome) -> Outcome {
        let entry = self.deviations.iter().find(|entry| entry["case"].as_str() == Some(name));
        match (entry, outcome) {
            (Some(entry), Outcome::Passed) => Outcome::Deviating(reason(entry)),
            (_, outcome) => outcome,
        }
    }

    fn inexpressible(&self, name: &str, outcome: Outcome, folder: Folder) -> Outcome {
        let listed = self.inexpressible.iter().find(|entry| entry["case"].as_str() == Some(name));
        match (listed, outcome) {
            (Some(entry), Outcome::Inexpressible(met)) if entry["compile_error"] == *met => {
                Outcome::Inexpressible(format!("{} (tests/compile_errors/{met}.rs)", reason(entry)))
            }
            (Some(_), _) => no_exception("rule its case out"),
            (None, Outcome::Inexpressible(met)) if folder == Folder::Own || !is_compile_error(&met) => {
                Outcome::Failed(vec![format!("{met} rules it out, and inexpressible.json does not say so")])
            }
            (None, outcome) => outcome,
        }
    }
}

fn no_exception(what: &str) -> Outcome {
    Outcome::Failed(vec![format!("does not {what} any more: take it off the list")])
}

fn is_compile_error(name: &str) -> bool {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_errors");
    ["rs", "stderr"].iter().all(|extension| folder.join(format!("{name}.{extension}")).exists())
}

/// An entry is for a `case`, or for every case with a `processor`.
fn find<'a>(list: &'a [Json], name: &str, case: &Json) -> Option<&'a Json> {
    let ops = || case["topology"].as_array().into_iter().flatten();
    let uses =
        |processor: &str| ops().any(|op| op["processor"][0].as_str().or(op["processor"].as_str()) == Some(processor));
    list.iter().find(|entry| entry["case"].as_str() == Some(name) || entry["processor"].as_str().is_some_and(uses))
}

fn reason(entry: &Json) -> String {
    entry["reason"].as_str().unwrap_or_default().to_owned()
}

/// `instead` has a value for each JSON pointer into the case that we expect to be otherwise.
fn patched(case: &Json, instead: &Json) -> Json {
    let mut case = case.clone();
    for (pointer, value) in instead.as_object().expect("pointers with values") {
        let (parent, field) = pointer.rsplit_once('/').expect("a JSON pointer");
        match case.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} is not in the case")) {
            Json::Object(fields) => drop(fields.insert(field.to_owned(), value.clone())),
            Json::Array(items) => items[field.parse::<usize>().expect("a place")] = value.clone(),
            other => panic!("{pointer} is within {other}"),
        }
    }
    case
}

/// The command `count` asks a store on disk for about how many rows it has. Java's answer is an estimate of RocksDB, which
/// takes every deletion for one of a row. The driver's stores are in memory, so their answer has to be exact.
fn exact_counts(case: &Json) -> Option<Json> {
    let mut ours = case.clone();
    let mut keys: BTreeSet<String> = BTreeSet::new();
    let mut counts = 0;
    for step in ours["steps"].as_array_mut().into_iter().flatten() {
        let command = step["pipe"]["value"].as_str().unwrap_or_default().to_owned();
        let key = step["pipe"]["key"].as_str().unwrap_or_default().to_owned();
        let words: Vec<&str> = command.split(' ').collect();
        let mut put = |key: &str, value: &str| {
            if value == "null" {
                keys.remove(key)
            } else {
                keys.insert(key.to_owned())
            };
        };
        match words.as_slice() {
            ["put", value] => put(&key, value),
            ["put_if_absent", value] if *value != "null" => put(&key, value),
            ["put_all", pairs @ ..] => {
                pairs.iter().filter_map(|pair| pair.split_once('=')).for_each(|(key, value)| put(key, value));
            }
            ["delete"] => put(&key, "null"),
            ["count"] => {
                counts += 1;
                step["out"][0]["value"] = json!(keys.len().to_string());
            }
            _ => {}
        }
    }
    (counts > 0).then_some(ours)
}

#[test]
fn an_entry_without_a_case_or_without_a_need_fails() {
    let entry = json!({"case": "errors/listed", "reason": "a reason", "compile_error": "a_negative_window"});
    let exceptions = Exceptions { deviations: Vec::new(), inexpressible: vec![entry] };
    assert_eq!(exceptions.unknown(&["errors/other"]), ["errors/listed"]);
    assert!(exceptions.unknown(&["errors/listed"]).is_empty());
    let met = || Outcome::Inexpressible("a_negative_window".to_owned());
    let settle = |name: &str, outcome, folder| exceptions.inexpressible(name, outcome, folder);
    assert!(matches!(settle("errors/listed", met(), Folder::Own), Outcome::Inexpressible(_)));
    assert!(matches!(settle("errors/listed", Outcome::Passed, Folder::Own), Outcome::Failed(_)), "can be written");
    assert!(matches!(settle("errors/other", met(), Folder::Own), Outcome::Failed(_)), "is not listed");
    assert_eq!(settle("errors/other", met(), Folder::Further), met(), "is of the same kind");
    let unknown = Outcome::Inexpressible("no_such_mistake".to_owned());
    assert!(matches!(settle("errors/other", unknown, Folder::Further), Outcome::Failed(_)), "nothing stands in");
}
