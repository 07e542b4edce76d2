//! Runs the cases that Java Kafka Streams has recorded (`vectors/README.md` is the format) on the test driver.
//!
//! `KSTREAMS_VECTORS` names further folders, separated by colons. Every case has an outcome, and the last line for each
//! folder counts them. A failed case fails the test; what the library does not have yet is unsupported and listed.
//!
//! `cases` has some of our own, for what none of the recorded ones combines: there nothing may be unsupported.
//!
//! Two lists are data beside this file: `deviations.json`, where we differ on purpose (such a case must have the outcome
//! that we document instead, or what a `rule` of the runner makes of it), and `inexpressible.json`, what Rust's types rule
//! out: a case of `tests/compile_errors` stands in. An entry fails when its case is unknown or is no exception any more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    clippy::wrong_self_convention,
    reason = "a test may panic in its helpers, and its report is for people"
)]

mod build;
mod cogroup;
mod compare;
mod dsl;
mod exceptions;
mod final_rows;
mod formats_groups;
mod formats_joins;
mod formats_stores;
mod functions;
mod global;
mod key;
mod low_level;
mod optimize;
mod outcome;
mod patterns;
mod processors;
mod run;
mod store_commands;
mod stores;
mod stream_joins;
mod suppress;
mod table_joins;
mod transform_values;
mod value;
mod versioned;
mod windowed;
mod windowed_commands;
mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use exceptions::{Exceptions, Folder};
use outcome::{Outcome, Tally};
use serde_json::Value as Json;

#[test]
fn every_case_has_the_outcome_that_java_recorded() {
    silence_boom();
    let exceptions = Exceptions::read();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/vectors");
    let further = std::env::var("KSTREAMS_VECTORS").unwrap_or_default();
    let further = further.split(':').filter(|folder| !folder.is_empty()).map(str::to_owned);
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/cases");
    let folders: Vec<String> = [own, here].iter().map(|folder| folder.display().to_string()).chain(further).collect();
    let own_first = std::iter::once(Folder::Own).chain(std::iter::repeat(Folder::Further));
    let tallies = folders.iter().zip(own_first).map(|(folder, whose)| run_folder(folder, &exceptions, whose));
    let tallies: Vec<Tally> = tallies.collect();
    assert_eq!(tallies.get(1).map(|tally| tally.unsupported), Some(0), "our own cases all run");
    let failed: usize = tallies.iter().map(|tally| tally.failed).sum();
    assert_eq!(failed, 0, "cases failed: see above");
}

fn run_folder(folder: &str, exceptions: &Exceptions, whose: Folder) -> Tally {
    let mut tally = Tally::default();
    let outcomes = outcomes(Path::new(folder), exceptions, whose);
    if whose == Folder::Own {
        let names: Vec<&str> = outcomes.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(exceptions.unknown(&names), Vec::<String>::new(), "exceptions for cases that are not there");
    }
    // By the thing that is missing: what to build next.
    let mut unsupported: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, about, outcome) in outcomes {
        tally.count(&outcome);
        match outcome {
            Outcome::Passed => {}
            Outcome::Failed(differences) => {
                println!("FAILED {name}: {about}");
                differences.iter().for_each(|line| println!("    {line}"));
            }
            Outcome::Unsupported(what) => unsupported.entry(what).or_default().push(name),
            Outcome::Deviating(reason) => println!("deviating {name}: {reason}"),
            Outcome::Inexpressible(reason) => println!("inexpressible {name}: {reason}"),
        }
    }
    for (what, names) in unsupported {
        println!("unsupported for want of {what}: {}", names.join(" "));
    }
    println!("{folder}: {tally}");
    tally
}

/// Name, what it is about, outcome; a folder may have no `wire.json`.
fn outcomes(folder: &Path, exceptions: &Exceptions, whose: Folder) -> Vec<(String, String, Outcome)> {
    let read = |path: &Path| -> Json {
        serde_json::from_str(&fs::read_to_string(path).unwrap())
            .unwrap_or_else(|error| panic!("{} is no case: {error}", path.display()))
    };
    let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
    let cases = case_files(folder).into_iter().map(|path| {
        let case = read(&path);
        let name = text(&case["name"]);
        let outcome = exceptions.run(&name, &case, whose);
        (name, text(&case["about"]), outcome)
    });
    let formats = Some(folder.join("wire.json")).filter(|path| path.exists()).map(|path| wire::run(&read(&path)));
    let formats = formats.into_iter().flatten().map(|(name, outcome)| {
        let outcome = exceptions.of_format(&name, outcome);
        (name, "a format".to_owned(), outcome)
    });
    cases.chain(formats).collect()
}

/// Cases lie in the folders of their areas.
fn case_files(folder: &Path) -> Vec<PathBuf> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let areas = list(folder).into_iter().filter(|path| path.is_dir());
    let mut files: Vec<_> = areas.flat_map(|area| list(&area)).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files
}

/// A user failure of a case is a panic; it is caught, and need not be told.
fn silence_boom() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<String>().map(String::as_str);
        let text = text.or(info.payload().downcast_ref::<&str>().copied()).unwrap_or_default();
        if !text.starts_with("boom") {
            before(info);
        }
    }));
}
