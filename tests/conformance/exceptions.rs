//! The two lists of cases that are not asserted as they are.

use serde_json::Value as Json;

use crate::outcome::Outcome;
use crate::run::run;

pub struct Exceptions {
    deviations: Vec<Json>,
    inexpressible: Vec<Json>,
}

impl Exceptions {
    pub fn read() -> Exceptions {
        let list = |text: &str| serde_json::from_str(text).expect("a list of cases");
        Exceptions {
            deviations: list(include_str!("deviations.json")),
            inexpressible: list(include_str!("inexpressible.json")),
        }
    }

    pub fn run(&self, name: &str, case: &Json) -> Outcome {
        let of = |list: &'_ [Json]| list.iter().find(|entry| entry["case"].as_str() == Some(name)).cloned();
        if let Some(entry) = of(&self.inexpressible) {
            return Outcome::Inexpressible(entry["reason"].as_str().unwrap_or_default().to_owned());
        }
        let Some(entry) = of(&self.deviations) else { return run(case) };
        if run(case) == Outcome::Passed {
            return Outcome::Failed(vec!["does not deviate any more: take it off the list".to_owned()]);
        }
        match run(&patched(case, &entry["instead"])) {
            Outcome::Passed => Outcome::Deviating(entry["reason"].as_str().unwrap_or_default().to_owned()),
            outcome => outcome,
        }
    }
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
