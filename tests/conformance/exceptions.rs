//! The cases that are not asserted as they are: two lists, and one rule.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use crate::outcome::Outcome;
use crate::run::run;

pub(crate) struct Exceptions {
    deviations: Vec<Json>,
    inexpressible: Vec<Json>,
}

impl Exceptions {
    pub(crate) fn read() -> Exceptions {
        let list = |text: &str| serde_json::from_str(text).expect("a list of cases");
        Exceptions {
            deviations: list(include_str!("deviations.json")),
            inexpressible: list(include_str!("inexpressible.json")),
        }
    }

    pub(crate) fn run(&self, name: &str, case: &Json) -> Outcome {
        if let Some(entry) = find(&self.inexpressible, name, case) {
            return Outcome::Inexpressible(reason(entry));
        }
        let outcome = run(case);
        let deviating = match find(&self.deviations, name, case) {
            Some(_) if outcome == Outcome::Passed => {
                return Outcome::Failed(vec!["does not deviate any more: take it off the list".to_owned()]);
            }
            Some(entry) => Some((patched(case, &entry["instead"]), reason(entry))),
            None if matches!(outcome, Outcome::Failed(_)) => exact_counts(case),
            None => None,
        };
        let Some((ours, reason)) = deviating else { return outcome };
        match run(&ours) {
            Outcome::Passed => Outcome::Deviating(reason),
            outcome => outcome,
        }
    }
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
fn exact_counts(case: &Json) -> Option<(Json, String)> {
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
    let reason = "the number of rows is only approximate, and here it is exact: Java's counts deletions of nothing";
    (counts > 0).then(|| (ours, reason.to_owned()))
}
