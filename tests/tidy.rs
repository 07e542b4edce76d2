//! Reads the sources and holds them to the rules of `CONTRIBUTING.md` that a compiler does not see.
//!
//! Each rule is one test. A failure lists `file:line` and says what to do instead. Comments count as text on purpose: a
//! reader who greps for the one home of a foreign crate should find nothing else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic in its helpers too")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Everything of ours that is compiled.
const CODE: &[&str] = &["src", "tests", "examples", "benches", "fuzz/fuzz_targets"];

/// No file may be longer; think about a split at 600.
const LINES_MAX: usize = 1000;

struct Source {
    /// Relative to the project's root, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn is_in(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    /// The first line of the unit tests at the end of the file; tests may use what the code beside them may not.
    fn tests_start(&self) -> usize {
        if self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return 0;
        }
        let lines: Vec<&str> = self.text.lines().collect();
        let position = lines.windows(2).position(|pair| {
            pair[0].starts_with("#[cfg(") && pair[0].contains("test") && pair[1].starts_with("mod tests")
        });
        position.unwrap_or(lines.len())
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(folders: &[&str], extensions: &[&str]) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| extensions.iter().any(|wanted| e == *wanted)) {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
                sources.push(Source { path: name, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `line` has `needle` with no letter, digit or underscore right before it.
fn names(line: &str, needle: &str) -> bool {
    line.match_indices(needle).any(|(at, _)| !line[..at].ends_with(is_word))
}

/// The identifier at the start of `text`.
fn word(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

/// The lines of `sources` for which `hit` says why they are wrong.
fn lines(sources: &[Source], mut hit: impl FnMut(&Source, usize, &str) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (index, line) in source.text.lines().enumerate() {
            if let Some(what) = hit(source, index, line) {
                found.push(format!("{}:{}: {what}", source.path, index + 1));
            }
        }
    }
    found
}

#[track_caller]
fn report(rule: &str, remedy: &str, found: &[String]) {
    let mut message = format!("{rule}\n");
    for line in found {
        writeln!(message, "  {line}").unwrap();
    }
    assert!(found.is_empty(), "{message}  -> {remedy}");
}

/// Lines of `src` outside of `homes` that name one of `needles`.
fn outside(homes: &[&str], needles: &[&str]) -> Vec<String> {
    lines(&read(&["src"], &["rs", "md"]), |source, _, line| {
        let needle = needles.iter().find(|needle| names(line, needle))?;
        (!source.is_in(homes)).then(|| format!("names `{needle}`"))
    })
}

#[test]
fn only_the_kafka_client_names_rdkafka() {
    let found = outside(&["src/client/kafka"], &["rdkafka::", "rdkafka_sys::"]);
    report("librdkafka has one home", "go through the traits of src/client/mod.rs", &found);
}

#[test]
fn only_the_rocksdb_engine_names_rocksdb() {
    let found = outside(&["src/state/rocksdb"], &["rocksdb::"]);
    report("RocksDB has one home", "go through the engine of src/state", &found);
}

#[test]
fn only_membership_names_kafka_protocol() {
    let found = outside(&["src/membership"], &["kafka_protocol::"]);
    report("the wire protocol has one home", "speak to the group through src/membership/mod.rs", &found);
}

#[test]
fn only_the_rim_has_threads_and_tokio() {
    let found = outside(
        &["src/runtime", "src/membership", "src/query", "src/client"],
        &["tokio::", "thread::spawn", "thread::Builder"],
    );
    report(
        "the core is synchronous: no runtime and no threads, not even in a doc example",
        "take the result as an argument; threads are started and joined in src/runtime",
        &found,
    );
}

#[test]
fn only_the_kafka_client_is_unsafe() {
    let found = outside(&["src/client/kafka"], &["unsafe ", "unsafe{"]);
    report("unsafe code has one home", "use a safe way, or add a safe function to src/client/kafka/sys.rs", &found);
}

#[test]
fn the_core_reads_no_clock_and_never_sleeps() {
    let core = read(&["src/task", "src/operators", "src/topology", "src/state", "src/dsl"], &["rs"]);
    let found = lines(&core, |_, _, line| {
        let needle = ["SystemTime::now", "Instant::now", "thread::sleep"].iter().find(|n| names(line, n))?;
        Some(format!("names `{needle}`"))
    });
    report("time is an argument of the core", "take a `Timestamp` from the caller", &found);
}

/// What the code of a folder or file may not name: dependencies point down.
const BELOW: &[(&str, &[&str])] = &[
    ("src/record.rs", LEAF),
    ("src/time.rs", LEAF),
    ("src/window", LEAF),
    ("src/error.rs", LEAF),
    ("src/partition.rs", LEAF),
    ("src/serdes", LEAF),
    ("src/state", &["dsl", "operators", "task", "client", "membership", "runtime", "query", "http", "testing"]),
    ("src/topology", &["dsl", "operators", "client", "membership", "runtime", "query", "http", "testing"]),
    ("src/operators", &["dsl", "task", "client", "membership", "runtime", "query", "http", "testing"]),
    ("src/task", &["dsl", "operators", "client", "membership", "runtime", "query", "http", "testing"]),
    ("src/dsl", &["client", "membership", "runtime", "query", "http", "testing"]),
    ("src/client", &["dsl", "operators", "task", "state", "runtime", "query", "http", "testing"]),
    ("src/membership", &["dsl", "operators", "task", "state", "runtime", "query", "http", "testing"]),
    ("src/runtime", &["dsl", "operators", "gateway", "http", "testing"]),
    ("src/query", &["dsl", "operators", "gateway", "http", "testing"]),
    ("src/query/http", &["dsl", "operators", "task", "state", "client", "membership", "testing"]),
    ("src/query/gateway", &["dsl", "operators", "task", "testing"]),
    ("src/testing", &["dsl", "operators"]),
];

const LEAF: &[&str] =
    &["topology", "dsl", "operators", "state", "task", "client", "membership", "runtime", "query", "http", "testing"];

/// The modules a `use` or path of the line names directly below `crate::`, in groups too.
fn crate_modules(line: &str) -> Vec<&str> {
    let mut modules = Vec::new();
    for (at, path) in line.match_indices("crate::") {
        let rest = &line[at + path.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            modules.push(word(rest));
            // What stands on the runtime, though it is a part of the queries.
            modules.extend(["gateway", "http"].iter().filter(|part| rest.starts_with(&format!("query::{part}"))));
            continue;
        };
        let mut depth = 0;
        let mut fresh = true;
        for (offset, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' => fresh = true,
                c if is_word(c) && fresh && depth == 0 => {
                    modules.push(word(&group[offset..]));
                    fresh = false;
                }
                _ => {}
            }
        }
    }
    modules
}

#[test]
fn dependencies_point_down() {
    let found = lines(&read(&["src"], &["rs"]), |source, index, line| {
        if line.trim_start().starts_with("//") || index >= source.tests_start() {
            return None;
        }
        let homes = BELOW.iter().filter(|(home, _)| source.path.starts_with(home));
        let (home, banned) = homes.max_by_key(|(home, _)| home.len())?;
        let module = crate_modules(line).into_iter().find(|module| banned.contains(module))?;
        Some(format!("{home} may not name crate::{module}"))
    });
    report(
        "dependencies point down: dsl, operators, topology, state, leaves; task calls makers; runtime sits on top",
        "move the shared type to the lower module, or pass a closure or trait down",
        &found,
    );
}

#[test]
fn no_name_says_only_that_something_is_there() {
    let endings = ["Manager", "Impl", "Helper", "Wrapper", "Supplier", "Util", "Utils"];
    let modules = ["util", "utils", "common", "helper", "helpers", "misc", "internal", "manager"];
    let kinds = ["struct ", "enum ", "trait ", "type ", "mod "];
    let mut found = lines(&read(&["src"], &["rs"]), |_, _, line| {
        let (at, kind) = kinds.iter().find_map(|kind| {
            let at = line.find(kind)?;
            (!line[..at].ends_with(is_word)).then_some((at, kind))
        })?;
        let name = word(&line[at + kind.len()..]);
        let empty = endings.iter().any(|ending| name.ends_with(ending))
            || (*kind != "mod " && name.starts_with("Internal") && name.len() > "Internal".len())
            || (*kind == "mod " && modules.contains(&name));
        empty.then(|| format!("`{name}`"))
    });
    for source in read(&["src"], &["rs"]) {
        let stem = Path::new(&source.path).file_stem().unwrap().to_str().unwrap();
        if modules.contains(&stem) {
            found.push(format!("{}:1: the file's name", source.path));
        }
    }
    report(
        "a name that fits everything says nothing",
        "name it by what it holds or does, in the field's words",
        &found,
    );
}

#[test]
fn nothing_is_left_unfinished() {
    // Put together here, so that this file does not find itself.
    let needles = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[", "ignore"),
        concat!("not yet ", "implemented"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    let found = lines(&read(CODE, &["rs"]), |_, _, line| {
        let needle = needles.iter().find(|needle| line.contains(*needle))?;
        Some(format!("`{needle}`"))
    });
    report("what is merged is finished", "finish it, or leave it out and open an issue", &found);
}

#[test]
fn no_file_is_too_long() {
    let sources = read(CODE, &["rs"]);
    let long = sources.iter().map(|source| (&source.path, source.text.lines().count())).filter(|(_, n)| *n > LINES_MAX);
    let found: Vec<String> = long.map(|(path, n)| format!("{path}:{n}: {n} lines, {LINES_MAX} at most")).collect();
    report("one noun, one file", "split it where two things can be read apart", &found);
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let folders = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];
    let found = lines(&tracked(), |_, _, line| {
        let folder = folders.iter().find(|folder| {
            // After a letter, a dot or a brace the folder is part of a longer path or address.
            line.match_indices(*folder).any(|(at, _)| !line[..at].ends_with(|c| is_word(c) || ".}-".contains(c)))
        })?;
        Some(format!("names a path below `{folder}`"))
    });
    report("the project works on every machine", "use a path relative to the project, or a variable", &found);
}

/// Every text file that git knows; none outside of a checkout, as in a published crate.
fn tracked() -> Vec<Source> {
    let Ok(output) = Command::new("git").arg("-C").arg(root()).args(["ls-files", "-z"]).output() else {
        return Vec::new();
    };
    let list = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = list.split('\0').filter(|path| !path.is_empty());
    paths
        .filter_map(|path| Some(Source { path: path.into(), text: fs::read_to_string(root().join(path)).ok()? }))
        .collect()
}

#[test]
fn the_files_a_newcomer_looks_for_exist() {
    let required = [
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "Makefile",
        ".ci/run",
        "deny.toml",
        "clippy.toml",
        "scripts/prerequisites",
        "scripts/kafka/kafka",
    ];
    let found: Vec<String> =
        required.iter().filter(|path| !root().join(path).exists()).map(|path| format!("{path}:1: missing")).collect();
    report("the frame of the project is complete", "write the file, or take it off the list in tests/tidy.rs", &found);
}

#[test]
fn every_folder_test_and_example_says_what_it_is_for() {
    let sources = read(CODE, &["rs"]);
    let wanted = |source: &&Source| !source.path.starts_with("src/") || source.path.ends_with("/mod.rs");
    let silent = sources.iter().filter(wanted).filter(|source| !source.text.starts_with("//!"));
    let found: Vec<String> = silent.map(|source| format!("{}:1: no `//!` line", source.path)).collect();
    report("a folder, a test and an example say in one line what they are for", "open it with `//! …`", &found);
}

mod self_test {
    use super::*;

    #[test]
    fn names_needs_a_word_boundary() {
        assert!(names("use rocksdb::DB;", "rocksdb::"));
        assert!(!names("use my_rocksdb::DB;", "rocksdb::"));
    }

    #[test]
    fn crate_modules_reads_groups() {
        assert_eq!(crate_modules("use crate::{dsl::{KStream, x}, task, error::Result};"), ["dsl", "task", "error"]);
        assert_eq!(crate_modules("let a: crate::state::Store = crate::task::new();"), ["state", "task"]);
    }

    #[test]
    fn unit_tests_are_found_at_the_end_of_a_file() {
        let source = Source { path: "src/a.rs".into(), text: "code\n#[cfg(test)]\nmod tests {\n}".into() };
        assert_eq!(source.tests_start(), 1);
    }
}
