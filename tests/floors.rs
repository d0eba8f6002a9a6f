//! The rules of docs/architecture.md that no lint knows: imports point down, a few names stay in their modules, files and
//! folders keep to their size, and every test that the page names exists.
//!
//! The sources are read as text, line by line, without comments and test code. What clippy can check, clippy checks:
//! see clippy.toml and the head of `src/lib.rs`.

use std::fs;
use std::path::{Path, PathBuf};

/// Every module at the root, and the modules that it may import.
const FLOORS: &[(&str, &str)] = &[
    ("main", "commands preflight app banner cli clock logging metrics settings signals systemd"),
    // What the binary does besides serving; of the store the queue that no relay uses, and the names of holders.
    ("commands", "preflight web store access banner cli clock logging settings"),
    // The store only to look at the queue without changing anything.
    ("preflight", "app web store access banner clock settings tls"),
    (
        "app",
        "web actors relay store transport abort_on_panic access banner client_log clock metrics settings",
    ),
    // The store only for backups and the names of holders.
    (
        "web",
        "actors relay store protocol transport access client_address client_log clock logging metrics settings tls web_origin",
    ),
    (
        "actors",
        "relay store protocol transport abort_on_panic access client_address client_log clock metrics settings",
    ),
    ("relay", "store protocol access clock metrics settings"),
    ("store", "protocol abort_on_panic access clock metrics settings"),
    ("protocol", ""),
    // Beside the floors: knows WebSockets and no message of ours.
    ("transport", ""),
    // The ground.
    ("abort_on_panic", ""),
    ("access", "settings"),
    ("banner", "settings"),
    ("cli", ""),
    ("client_address", ""),
    ("client_log", "clock"),
    ("clock", ""),
    ("logging", "settings"),
    ("metrics", "protocol"),
    ("settings", "cli web_origin"),
    ("signals", ""),
    ("systemd", ""),
    ("tls", ""),
    ("web_origin", ""),
    // Declares the others.
    ("lib", ""),
];

/// The beginning of a name, the only places under `src/` where it may stand, and why.
const PLACES: &[(&str, &str, &str)] = &[
    ("actix_web_actors", "transport/ actors/session.rs", "upstream prefers actix-ws for new code"),
    ("actix", "transport/ actors/ web/ app/ main.rs abort_on_panic.rs", "rules are plain code"),
    ("tokio", "transport/ actors/ web/ app/ commands/ main.rs signals.rs", "rules do no I/O"),
    ("crate::transport", "actors/session.rs web/ app/", "only sessions stand on it"),
    ("rustix", "store/ clock.rs", "files are used by handles in the store only"),
    (
        "Instant::now",
        "clock.rs transport/ web/http.rs commands/ store/writer.rs store/queue_writer.rs store/commit_time.rs",
        "time is an argument",
    ),
    ("SystemTime::now", "clock.rs logging.rs", "time is an argument"),
];

/// A comment with one of these phrases is vague and must be rewritten.
const VAGUE: &[&str] = &["so many", "whoever", "as far as"];

/// The most lines without tests: all of `src/`, and its core.
const BUDGET: usize = 27_000;
const CORE_BUDGET: usize = 14_000;
const CORE: &[&str] = &["protocol", "relay", "actors", "web", "app"];
const LINES_PER_FILE: usize = 500;
const LINES_PER_TEST_FILE: usize = 600;

/// Lints that turn a panic in the sources into an error.
const NO_PANICS: &[&str] =
    &["unwrap_used", "expect_used", "panic", "todo", "unimplemented", "unreachable"];

/// Each row of the walk names a file, a type and a function; the type and the function must be in that file.
#[test]
fn the_walk_of_a_send_names_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/architecture.md")).expect("the page is there");
    let walk = page.split("## The walk of one Send").nth(1).expect("the walk is there");
    let walk = walk.split("\n## ").next().unwrap_or_default();
    let (mut rows, mut wrong, mut forms) = (0, Vec::new(), std::collections::BTreeSet::new());
    for row in walk.lines().filter(|line| {
        line.starts_with("| the ") || line.starts_with("| what ") || line.starts_with("| identity ")
    }) {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [_, _, file, name, function, form, _] = cells[..] else {
            wrong.push(format!("not five cells: {row}"));
            continue;
        };
        rows += 1;
        forms.extend(form.split(" → ").filter(|form| !form.is_empty()));
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        let has_type = [format!("struct {name}"), format!("for {name}"), format!("impl {name}")];
        if !has_type.iter().any(|name| text.contains(name)) {
            wrong.push(format!("{file} does not know {name}"));
        }
        if !text.contains(&format!("fn {function}(")) && !text.contains(&format!("fn {function}<"))
        {
            wrong.push(format!("{file} has no function {function}"));
        }
    }
    assert!(wrong.is_empty(), "docs/architecture.md:\n{}", wrong.join("\n"));
    assert!(rows >= 15, "only {rows} rows of the walk were found");
    let expected = ["bytes", "envelope", "frame", "record"];
    assert!(forms.iter().copied().eq(expected), "the forms of a message are {forms:?}");
}

#[test]
fn imports_point_down_only() {
    let mut wrong = Vec::new();
    for source in sources() {
        let floor = source.floor();
        let Some((_, allowed)) = FLOORS.iter().find(|(name, _)| *name == floor) else {
            wrong.push(format!("{}: {floor} is on no floor: enter it in FLOORS", source.path));
            continue;
        };
        for (line, text) in &source.code {
            let at = format!("src/{}:{line}", source.path);
            for path in ["crate::", "sealpost::"].iter().flat_map(|root| text.split(root).skip(1)) {
                let end =
                    path.find(|letter: char| !is_name_character(letter)).unwrap_or(path.len());
                let found = &path[..end];
                // A name at the root that is no module (a macro, for example) is not checked.
                let is_module = FLOORS.iter().any(|(name, _)| *name == found);
                if is_module && found != floor && !allowed.split(' ').any(|name| name == found) {
                    wrong.push(format!("{at}: {floor} must not import {found}"));
                }
            }
            if text.contains("crate::{") || text.contains("sealpost::{") {
                wrong.push(format!("{at}: write one use for each module at the root"));
            }
            if floor == "lib" && has_name(text, "use") {
                wrong.push(format!("{at}: a path shows its floor: no re-exports here"));
            }
            if text.contains("super::super::") && source.path.matches('/').count() < 2 {
                wrong.push(format!("{at}: climbs to the root: write crate::"));
            }
        }
    }
    assert_nothing(&wrong);
}

#[test]
fn names_stay_in_their_modules() {
    let mut wrong = Vec::new();
    for source in sources() {
        let path = source.path.as_str();
        let is_at = |place: &str| path == place || place.ends_with('/') && path.starts_with(place);
        for (name, places, why) in PLACES {
            let is_foreign = !places.split(' ').any(is_at);
            for (line, text) in
                source.code.iter().filter(|(_, text)| is_foreign && has_name(text, name))
            {
                wrong.push(format!("src/{path}:{line}: {name} must not stand here, {why}: {text}"));
            }
        }
    }
    assert_nothing(&wrong);
}

/// Clippy does the work; it must not be switched off.
#[test]
fn nothing_panics_on_purpose() {
    for source in sources() {
        let is_root = ["lib.rs", "main.rs"].contains(&source.path.as_str());
        for lint in NO_PANICS.iter().map(|lint| format!("clippy::{lint}")) {
            let allows = source.code.iter().any(|(_, text)| text.contains(&lint)) && !is_root;
            assert!(!allows, "src/{}: {lint} may not be allowed", source.path);
            assert!(!is_root || source.text.contains(&lint), "src/{}: deny {lint}", source.path);
        }
    }
}

#[test]
fn files_and_folders_keep_to_their_size() {
    let mut wrong = Vec::new();
    let (mut all, mut core) = (0, 0);
    for source in sources() {
        let lines = source.code.len();
        all += lines;
        core += if CORE.contains(&source.floor()) { lines } else { 0 };
        if lines > LINES_PER_FILE {
            wrong.push(format!("src/{}: {lines} lines, {LINES_PER_FILE} at most", source.path));
        }
    }
    let tests = files("tests")
        .into_iter()
        .chain(files("src").into_iter().filter(|path| is_test_file(path)));
    for path in tests {
        let lines = fs::read_to_string(root().join(&path)).expect("a test").lines().count();
        if lines > LINES_PER_TEST_FILE {
            wrong.push(format!("{path}: {lines} lines, {LINES_PER_TEST_FILE} at most"));
        }
    }
    for (name, lines, budget) in [("src", all, BUDGET), ("the core", core, CORE_BUDGET)] {
        if lines > budget {
            wrong.push(format!("{name}: {lines} lines without tests, {budget} at most"));
        }
    }
    assert_nothing(&wrong);
}

#[test]
fn comments_are_plain() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in (1..).zip(source.text.lines()) {
            let comment =
                line.split_once("//").map_or(String::new(), |(_, text)| text.to_lowercase());
            if let Some(vague) = VAGUE.iter().find(|vague| comment.contains(**vague)) {
                wrong.push(format!("src/{}:{number}: \"{vague}\"", source.path));
            }
        }
    }
    assert_nothing(&wrong);
}

/// `file::name` in backticks names a test. Every invariant names one.
#[test]
fn every_test_in_the_architecture_exists() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).expect("the page is there");
    let mut wrong = Vec::new();
    let mut found = 0;
    for quoted in page.split('`').skip(1).step_by(2) {
        let Some((file, name)) = quoted.split_once(".rs::") else { continue };
        found += 1;
        let text = fs::read_to_string(root().join(format!("{file}.rs"))).unwrap_or_default();
        if !is_test(&text, name) {
            wrong.push(format!("{file}.rs has no test {name}"));
        }
    }
    let table = page.split("## Invariants").nth(1).unwrap_or_default();
    let table = table.split("\n## ").next().unwrap_or_default();
    for row in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        if !row.contains(".rs::") {
            wrong.push(format!("no test guards: {row}"));
        }
    }
    assert_nothing(&wrong);
    assert!(found > 20, "the tests were not found in the page");
}

/// Whether a function of that name follows an attribute such as `#[test]` or `#[tokio::test]`.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let place = lines.iter().position(|line| line.contains(&format!("fn {name}(")));
    let before = &lines[..place.unwrap_or(0)];
    let mut attributes = before.iter().rev().take_while(|line| line.starts_with(['#', '/']));
    attributes.any(|line| line.starts_with("#[test]") || line.contains("::test"))
}

/// The tests above depend on how the sources are read.
#[test]
fn tests_comments_and_literals_are_left_out() {
    let text =
        "a // x\n#[cfg(test)]\nmod tests {\n    x\n}\nb(\"x // \\\"\") c\n#[cfg(test)]\nmod d;\ne";
    let code: Vec<(usize, String)> = without_tests(text);
    let expected = [(1, "a "), (6, "b(\"\") c"), (9, "e")];
    assert_eq!(code, expected.map(|(number, text)| (number, text.to_owned())));
    assert!(has_name("use actix_http", "actix") && !has_name("use tactix", "actix"));
}

#[track_caller]
fn assert_nothing(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A file under `src/` that is not a test.
struct Source {
    path: String,
    text: String,
    /// The lines outside `#[cfg(test)]`, numbered, without comments and literals.
    code: Vec<(usize, String)>,
}

impl Source {
    fn floor(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

fn sources() -> Vec<Source> {
    let found: Vec<Source> = files("src")
        .into_iter()
        .filter(|path| !is_test_file(path))
        .map(|path| {
            let text = fs::read_to_string(root().join(&path)).expect("a source");
            let path = path.trim_start_matches("src/").to_owned();
            Source { path, code: without_tests(&text), text }
        })
        .collect();
    assert!(found.len() > 30, "the sources were not found");
    found
}

/// An item behind `#[cfg(test)]` ends with a line like `mod tests;`, or with `}` where the item began.
fn without_tests(text: &str) -> Vec<(usize, String)> {
    let mut lines = (1..).zip(text.lines().map(str::to_owned));
    let mut kept = Vec::new();
    while let Some((number, line)) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push((number, code_of(&line)));
            continue;
        }
        let item = lines.find(|(_, line)| !line.trim().starts_with("#[")).unwrap_or_default().1;
        if !item.ends_with([';', ',']) {
            let end = format!("{}}}", &item[..item.len() - item.trim_start().len()]);
            lines.find(|(_, line)| *line == end);
        }
    }
    kept
}

/// A line without its comment, and without the text in quotes if both quotes are in the line.
fn code_of(line: &str) -> String {
    let line = line.replace("\\\"", "");
    let mut pieces = line.split('"');
    let mut code = pieces.next().unwrap_or_default().to_owned();
    while !code.contains("//")
        && let (Some(_), Some(after)) = (pieces.next(), pieces.next())
    {
        code.push_str("\"\"");
        code.push_str(after);
    }
    code.split("//").next().unwrap_or_default().to_owned()
}

fn is_test_file(path: &str) -> bool {
    // The audits recount the rules' data for the simulation; nothing else calls them.
    let ends = ["tests.rs", "test_probe.rs", "audit.rs"];
    ends.iter().any(|end| path.ends_with(end)) || path.contains("/tests/")
}

/// All Rust files below a folder of the repository, in order.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(root()).expect("below the root");
                found.push(inside.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// Whether a name that begins so stands in a line.
fn has_name(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| !text[..at].ends_with(is_name_character))
}

fn is_name_character(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}
