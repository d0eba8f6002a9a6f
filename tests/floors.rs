//! The floors of the support (docs/architecture.md): imports point down only, and a few words stay in their rooms.
//!
//! The page itself is held to the same: every test that it names exists.
//!
//! The sources are read as text, not parsed: comments and literals are blanked, test code is left out, the rest is
//! searched for paths that begin with `crate::` or `sealpost::`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Every module at the root, and what it may import. Whatever is not named here is on no floor and fails.
const FLOORS: &[(&str, &[&str])] = &[
    // The store only to look at it while no relay runs.
    ("main", &["app", "store", "cli", "clock", "logging", "metrics", "settings"]),
    ("app", &["web", "actors", "relay", "store", "transport", "clock", "metrics", "settings"]),
    ("web", &["actors", "relay", "protocol", "transport", "clock", "metrics", "settings"]),
    // Of these, `transport` is for sessions only: see `ROOMS`.
    ("actors", &["relay", "store", "protocol", "transport", "clock", "metrics", "settings"]),
    ("relay", &["store", "protocol", "clock", "settings"]),
    ("store", &["protocol", "clock", "settings"]),
    // Words: no clock, no settings.
    ("protocol", &[]),
    // Beside the floors: knows WebSockets and no message of ours.
    ("transport", &[]),
    // The ground.
    ("logging", &["settings"]),
    ("settings", &["cli"]),
    ("metrics", &[]),
    ("clock", &[]),
    ("cli", &[]),
    // Declares the others.
    ("lib", &[]),
];

/// A word, and the only places under `src/` where it may stand. A word ends where an identifier ends; one with `*` at its
/// end is the beginning of one.
const ROOMS: &[(&str, &[&str], &str)] = &[
    (
        "actix_web_actors",
        &["transport/", "actors/session.rs"],
        "upstream prefers actix-ws for new code, so it must stay replaceable",
    ),
    (
        "actix*",
        &["transport/", "actors/", "web/", "app.rs", "main.rs"],
        "rules, words, stores and the ground are plain code",
    ),
    ("crate::transport", &["actors/session.rs", "web/", "app.rs"], "only sessions stand on it"),
    ("tokio", &["transport/", "actors/", "web/", "app.rs", "main.rs"], "rules do no I/O"),
    (
        "Instant::now",
        &["clock.rs", "transport/", "store/writer.rs"],
        "time is an argument; the clock is read by doers, and by whoever waits on a thread of its own",
    ),
    ("SystemTime::now", &["clock.rs"], "time is an argument; the clock is read by doers"),
];

/// What can panic, and where it may.
const PANICS: &[&str] =
    &[".unwrap(", ".expect(", "panic!", "todo!", "unimplemented!", "unreachable!"];

/// File, part of the line, reason.
const MAY_PANIC: &[(&str, &str, &str)] = &[];

#[test]
fn imports_point_down_only() {
    let mut report = Report::default();
    for source in sources() {
        let floor = source.floor();
        let Some((_, allowed)) = FLOORS.iter().find(|(name, _)| *name == floor) else {
            report.say(&source, 1, format_args!("{floor} is on no floor: enter it in FLOORS"));
            continue;
        };
        for (line, text) in source.lines() {
            for found in imports(text) {
                let known = FLOORS.iter().any(|(name, _)| *name == found);
                // A path to something at the root that is no module (a macro, say) is not judged.
                if known && found != floor && !allowed.contains(&found) {
                    report.say(&source, line, format_args!("{floor} must not import {found}"));
                }
            }
            let climbs = text.matches("super::super::").count();
            if climbs > 0 && source.depth() <= 2 {
                report.say(&source, line, format_args!("climbs to the root: write crate::"));
            }
        }
    }
    report.verdict();
}

#[test]
fn words_stay_in_their_rooms() {
    let mut report = Report::default();
    for source in sources() {
        for (word, rooms, why) in ROOMS {
            let at_home = rooms.iter().any(|room| {
                source.path == *room || room.ends_with('/') && source.path.starts_with(room)
            });
            for (line, text) in source.lines().filter(|_| !at_home) {
                if has_word(text, word) {
                    report.say(&source, line, format_args!("{word} has no place here: {why}"));
                }
            }
        }
    }
    report.verdict();
}

#[test]
fn the_root_re_exports_nothing() {
    let mut report = Report::default();
    for source in sources().iter().filter(|source| source.floor() == "lib") {
        for (line, _) in source.lines().filter(|(_, text)| has_word(text, "use")) {
            report.say(source, line, format_args!("a path shows its floor: no re-exports here"));
        }
    }
    report.verdict();
}

#[test]
fn nothing_panics_on_purpose() {
    let mut report = Report::default();
    let mut unused: Vec<_> = MAY_PANIC.iter().collect();
    for source in sources() {
        for (line, text) in source.lines() {
            let Some(found) = PANICS.iter().find(|word| text.contains(**word)) else { continue };
            let excused =
                |(file, part, _): &(&str, &str, &str)| source.path == *file && text.contains(part);
            unused.retain(|entry| !excused(entry));
            if !MAY_PANIC.iter().any(excused) {
                report.say(&source, line, format_args!("`{found}`: answer with an error instead"));
            }
        }
    }
    assert!(unused.is_empty(), "entries of MAY_PANIC that excuse nothing: {unused:?}");
    report.verdict();
}

/// `file::name` in backticks names a test. Every invariant names one.
#[test]
fn every_test_in_the_architecture_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/architecture.md")).expect("the page is there");
    let mut wrong = Vec::new();
    let mut found = 0;
    for quoted in page.split('`').skip(1).step_by(2) {
        let Some((file, name)) = quoted.split_once(".rs::") else { continue };
        found += 1;
        let file = format!("{file}.rs");
        match fs::read_to_string(root.join(&file)) {
            Ok(text) if is_test(&text, name) => {}
            Ok(_) => wrong.push(format!("{file} has no test {name}")),
            Err(failed) => wrong.push(format!("{file}: {failed}")),
        }
    }
    let table = page.split("## Invariants").nth(1).unwrap_or_default();
    let table = table.split("\n## ").next().unwrap_or_default();
    for row in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        if !row.contains(".rs::") {
            wrong.push(format!("no test guards: {row}"));
        }
    }
    assert!(wrong.is_empty(), "docs/architecture.md:\n{}", wrong.join("\n"));
    assert!(found > 20, "the tests were not found in the page");
}

/// Whether a function of that name follows an attribute such as `#[test]` or `#[tokio::test]`.
fn is_test(text: &str, name: &str) -> bool {
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[") && line.contains("::test") {
            marked = true;
        } else if line.contains(&format!("fn {name}(")) {
            return marked;
        } else if line.contains("fn ") || line.starts_with("macro_rules!") {
            marked = false;
        }
    }
    false
}

/// The tests above are worth what their reading of the sources is worth.
#[test]
fn the_sources_are_read_as_they_are_meant() {
    let blank = |text: &str| Source::new("web/a.rs", text).text;
    assert_eq!(blank("a // .unwrap(\nb"), "a            \nb");
    assert_eq!(blank("/* /* x */ y */z"), "               z");
    assert_eq!(blank(r#"f("x\"panic!")g"#), r#"f("         ")g"#);
    assert_eq!(blank("f(r#\"a\"b\"#)g"), "f(r#\"   \"#)g");
    assert_eq!(blank("f('\"', '\\'', 'a') <'a>"), "f(' ', '  ', ' ') <'a>");
    let with_tests = "a\n#[cfg(test)]\nmod tests {\n    x.unwrap();\n}\nb\n#[cfg(test)]\nmod c;\nd";
    let code: String = blank(with_tests).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(code, "a b d");
    assert_eq!(imports("use crate::{app::App, web}; sealpost::cli::Cli"), ["app", "web", "cli"]);
    assert_eq!(imports("use crate::{\n app::{A, B},\n web::{ws},\n};"), ["app", "web"]);
    assert!(has_word("use actix::Addr", "actix*") && has_word("actix_http::ws", "actix*"));
    assert!(!has_word("tactix::x", "actix*") && !has_word("tokio_x", "tokio"));
    let declared = "#[cfg(test)]\nmod a;\n#[cfg(test)]\n#[path = \"c.rs\"]\nmod b;\nmod d;";
    let found = |file: &str| test_modules(Path::new(file), declared);
    assert_eq!(found("x/mod.rs"), [Path::new("x/a"), Path::new("x/c.rs")]);
    assert_eq!(found("x/y.rs"), [Path::new("x/y/a"), Path::new("x/c.rs")]);
    assert!(sources().len() > 30, "the sources were not found");
}

#[derive(Default)]
struct Report(String);

impl Report {
    fn say(&mut self, source: &Source, line: usize, what: std::fmt::Arguments<'_>) {
        writeln!(self.0, "src/{}:{line}: {what}", source.path).expect("memory takes it");
    }

    #[track_caller]
    fn verdict(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

/// A file under `src/`, without comments, literals and tests; lines stand where they stood.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: without_tests(&without_literals(text)) }
    }

    /// The module at the root that it belongs to.
    fn floor(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// How far below the root its module is.
    fn depth(&self) -> usize {
        let folders = self.path.matches('/').count();
        folders + usize::from(!self.path.ends_with("/mod.rs"))
    }

    /// Numbered from 1. A `use` of several lines is one, numbered by its first.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut rest = self.text.as_str();
        let mut number = 1;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let is_use = rest.trim_start_matches("pub ").starts_with("use ");
            let end = if is_use { rest.find(";\n").map(|at| at + 2) } else { None };
            let end = end.or_else(|| rest.find('\n').map(|at| at + 1)).unwrap_or(rest.len());
            let (line, after) = rest.split_at(end);
            let at = number;
            number += line.matches('\n').count();
            rest = after;
            Some((at, line))
        })
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut tests = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                tests.extend(test_modules(&path, &text));
                found.push((path, text));
            }
        }
    }
    // A module that is declared for tests is test code, and so is what lies in its folder.
    found.retain(|(path, _)| {
        !tests.iter().any(|test| path.with_extension("").starts_with(test.with_extension("")))
    });
    found.sort();
    let inside = |path: &Path| path.strip_prefix(&root).expect("below src").to_path_buf();
    let slashes = |path: &Path| inside(path).to_string_lossy().replace('\\', "/");
    found.iter().map(|(path, text)| Source::new(&slashes(path), text)).collect()
}

/// The files of modules that are declared behind `#[cfg(test)]`.
fn test_modules(file: &Path, text: &str) -> Vec<PathBuf> {
    let folder = file.parent().expect("a file is in a folder");
    let is_root = ["mod", "lib", "main"].iter().any(|name| file.file_stem() == Some(name.as_ref()));
    let below = if is_root { folder.to_path_buf() } else { file.with_extension("") };
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while lines.any(|line| line == "#[cfg(test)]") {
        let mut named = None;
        for line in lines.by_ref() {
            if let Some(path) = line.strip_prefix("#[path = \"") {
                named = path.strip_suffix("\"]").map(|path| folder.join(path));
            } else if !line.starts_with("#[") && !line.starts_with("///") {
                let name = line.split("mod ").nth(1).and_then(|rest| rest.strip_suffix(';'));
                found.extend(name.map(|name| named.unwrap_or(below.join(name))));
                break;
            }
        }
    }
    found
}

/// Blanks comments and what stands in quotes.
fn without_literals(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let at = |index: usize| letters.get(index).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let blank = |letter: char| if letter == '\n' { '\n' } else { ' ' };
    let mut index = 0;
    while index < letters.len() {
        let start = index;
        match (at(index), at(index + 1)) {
            ('/', '/') => {
                while index < letters.len() && at(index) != '\n' {
                    out.push(' ');
                    index += 1;
                }
            }
            ('/', '*') => {
                let mut depth = 0;
                loop {
                    match (at(index), at(index + 1)) {
                        ('/', '*') => depth += 1,
                        ('*', '/') => depth -= 1,
                        _ => {
                            out.push(blank(at(index)));
                            index += 1;
                            if index >= letters.len() {
                                break;
                            }
                            continue;
                        }
                    }
                    out.push_str("  ");
                    index += 2;
                    if depth == 0 {
                        break;
                    }
                }
            }
            ('r', '"' | '#') if !is_word(letters[..start].last().copied()) => {
                let hashes =
                    letters[index + 1..].iter().take_while(|letter| **letter == '#').count();
                out.push('r');
                index += 1;
                if at(index + hashes) != '"' {
                    continue; // a raw identifier
                }
                let end = format!("\"{}", "#".repeat(hashes));
                out.push_str(&"#".repeat(hashes));
                out.push('"');
                index += hashes + 1;
                let closes =
                    |index: usize| end.chars().enumerate().all(|(n, c)| at(index + n) == c);
                while index < letters.len() && !closes(index) {
                    out.push(blank(at(index)));
                    index += 1;
                }
                out.push_str(&end);
                index += end.len();
            }
            ('"', _) => {
                out.push('"');
                index += 1;
                while index < letters.len() && at(index) != '"' {
                    let width = if at(index) == '\\' { 2 } else { 1 };
                    for letter in letters.iter().skip(index).take(width) {
                        out.push(blank(*letter));
                    }
                    index += width;
                }
                out.push('"');
                index += 1;
            }
            ('\'', next) if next == '\\' || at(index + 2) == '\'' => {
                out.push('\'');
                index += 1;
                while index < letters.len() && at(index) != '\'' {
                    let width = if at(index) == '\\' { 2 } else { 1 };
                    out.push_str(&" ".repeat(width));
                    index += width;
                }
                out.push('\'');
                index += 1;
            }
            (letter, _) => {
                out.push(letter);
                index += 1;
            }
        }
    }
    out
}

/// Blanks what `#[cfg(test)]` stands before: as formatted, an item ends with `;` on its first line or with `}` below its
/// own first letter.
fn without_tests(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.split_inclusive('\n');
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            out.push_str(line);
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        out.push('\n');
        for line in lines.by_ref() {
            out.push('\n');
            let at = line.len() - line.trim_start().len();
            let first = line.trim();
            if at == indent && (first.ends_with(';') || first.starts_with('}')) {
                break;
            }
        }
    }
    out
}

/// The modules of this crate that a line names.
fn imports(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for root in ["crate::", "sealpost::"] {
        for (at, _) in line.match_indices(root) {
            if is_word(line[..at].chars().next_back()) {
                continue;
            }
            let rest = &line[at + root.len()..];
            let Some(group) = rest.strip_prefix('{') else {
                found.push(first_word(rest));
                continue;
            };
            let mut depth = 0;
            let mut begins = true;
            for (at, letter) in group.char_indices() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => begins = true,
                    _ if begins && is_word(Some(letter)) => {
                        found.push(first_word(&group[at..]));
                        begins = false;
                    }
                    _ => {}
                }
            }
        }
    }
    found
}

fn first_word(text: &str) -> &str {
    text.split(|letter| !is_word(Some(letter))).next().unwrap_or_default()
}

fn has_word(line: &str, word: &str) -> bool {
    let (word, prefix) = word.strip_suffix('*').map_or((word, false), |word| (word, true));
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !is_word(before) && (prefix || !is_word(after))
    })
}

fn is_word(letter: Option<char>) -> bool {
    letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
}
