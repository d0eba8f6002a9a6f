//! The sources of the settings: the file, the environment and the command line, merged over the defaults by `config`.
//!
//! Input that `config` would ignore or misread is checked before it: a file that is not TOML, a section that is no
//! table, an unknown key or variable.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::LazyLock;

use config::{Config, ConfigError, Environment, FileFormat};
use toml::{Table, Value};

use super::check::contradictions;
use super::problem::{Problem, Problems, printable};
use super::{KEYS, Settings};
use crate::cli::Cli;

/// The default file, in the working directory. It may be missing.
const FILE_NAME: &str = "settings.toml";

const DEFAULT_TEXT: &str = include_str!("../../settings.toml");

/// The exit status for a mistake in the program (sysexits.h).
const EX_SOFTWARE: i32 = 70;

/// What a name in the environment begins with. The rest is `SECTION__KEY`.
const PREFIX: &str = "SEALPOST__";

/// A settings file has a few KiB; more is another file, or a device that never ends.
const LARGEST_FILE: u64 = 1024 * 1024;

/// Reads and checks the settings: built-in defaults, then the file, then the environment, then the command line.
///
/// # Errors
///
/// Everything that is wrong, at once: a file that cannot be read or is no TOML, unknown keys and variables, values of the
/// wrong type or out of bounds, contradictions.
pub fn load(cli: &Cli) -> Result<Settings, Problems> {
    load_from(cli, Path::new(FILE_NAME), std::env::vars_os())
}

/// [`load`], with the default file and the environment given, so that tests need not share theirs. Its errors are the same.
pub fn load_from(
    cli: &Cli,
    default_file: &Path,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Settings, Problems> {
    let mut problems = Problems::default();
    let file = read_file(cli.config.as_deref(), default_file, &mut problems);
    let file_was_read = file.is_some();
    let file = known_keys(file.unwrap_or_default(), &mut problems);
    let environment = known_variables(variables, &mut problems);

    let settings = match merge(&file, environment, cli) {
        Ok(table) => Settings::read(&table, Some(&DEFAULTS), &mut problems).unwrap_or_default(),
        Err(error) => {
            problems.add(Problem::without_value("settings", printable(&error.to_string())));
            return Err(problems);
        }
    };
    if file_was_read {
        let found = contradictions(&settings, &problems);
        problems.0.extend(found);
    }
    if problems.0.is_empty() { Ok(settings) } else { Err(problems) }
}

/// The settings of the compiled-in `settings.toml`.
static DEFAULTS: LazyLock<Settings> = LazyLock::new(|| {
    let mut problems = Problems::default();
    let table = DEFAULT_TEXT.parse().unwrap_or_default();
    Settings::read(&table, None, &mut problems).unwrap_or_else(|| {
        // A mistake in the source, which every test and every start finds.
        eprintln!("the compiled-in settings.toml: {problems}");
        std::process::exit(EX_SOFTWARE)
    })
});

impl Default for Settings {
    fn default() -> Self {
        DEFAULTS.clone()
    }
}

/// The settings in the form of `settings.toml`: read again, they are equal to `settings`.
pub fn print(settings: &Settings) -> String {
    let lines: Vec<_> = KEYS.iter().zip(settings.values()).collect();
    let sections = lines.chunk_by(|((before, _), _), ((after, _), _)| before == after);
    let section = |lines: &[(&(&str, &str), Value)]| {
        let keys = lines.iter().map(|((_, key), value)| format!("{key} = {value}\n"));
        format!("[{}]\n{}", lines[0].0.0, keys.collect::<String>())
    };
    sections.map(section).collect::<Vec<_>>().join("\n")
}

/// The file as a table; empty if there need not be one; `None` and a problem if it cannot be read.
fn read_file(named: Option<&Path>, default: &Path, problems: &mut Problems) -> Option<Table> {
    let path = named.unwrap_or(default);
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_string(&mut text));
    let reason = match read {
        Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => {
            return Some(Table::new());
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            "cannot be read: it is not UTF-8".to_owned()
        }
        Err(error) => format!("cannot be read: {error}"),
        Ok(length) if length as u64 > LARGEST_FILE => {
            "cannot be read: it is larger than 1 MiB".to_owned()
        }
        Ok(_) => match text.parse() {
            Ok(table) => return Some(table),
            Err(error) => not_toml(&text, &error),
        },
    };
    problems.add(Problem::without_value(&path.display().to_string(), reason));
    None
}

/// Where a file stops being TOML, with that line shortened, and no more of the file than that.
fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let number = before.matches('\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default();
    // The first sentence is enough; what follows lists what was expected.
    let why = error.message().lines().next().unwrap_or_default();
    format!("is not TOML, line {number}: {}: {}", printable(why), printable(line.trim()))
}

/// The table without unknown keys and without sections that are none; each of them is a problem.
fn known_keys(mut file: Table, problems: &mut Problems) -> Table {
    for (section, _) in KEYS {
        if let Some(value) = file.get(*section).filter(|value| !value.is_table()) {
            let reason = format!("must be a section, begun by a line [{section}]");
            problems.add(Problem::with_value(section, value, reason));
            file.remove(*section);
        }
    }
    let mut unknown_key =
        |name: &str| problems.add(Problem::without_value(name, unknown("key", name)));
    // `config` would take an unknown name for a path ("limits[0]"), so only known ones go there.
    file.retain(|section, value| {
        let is_known = KEYS.iter().any(|(known, _)| *known == section);
        match value.as_table_mut().filter(|_| is_known) {
            Some(table) => table.retain(|key, _| {
                let is_known = KEYS.contains(&(section, key));
                if !is_known {
                    unknown_key(&format!("{section}.{key}"));
                }
                is_known
            }),
            None => unknown_key(section),
        }
        is_known
    });
    file
}

/// The variables with our prefix whose names are known and whose values are text. The rest of those with our prefix are
/// problems; all other variables are ignored.
fn known_variables(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    problems: &mut Problems,
) -> HashMap<String, String> {
    let mut known = HashMap::new();
    let mut refused = BTreeMap::new();
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let key = rest.to_ascii_lowercase().replace("__", ".");
        let is_known = rest.to_ascii_uppercase() == rest
            && KEYS.iter().any(|(section, name)| key == format!("{section}.{name}"));
        match value.into_string() {
            _ if !is_known => drop(refused.insert(name, unknown("variable", &key))),
            Ok(value) => drop(known.insert(name, value)),
            Err(_) => drop(refused.insert(name, "must be text in UTF-8".to_owned())),
        }
    }
    for (name, reason) in refused {
        problems.add(Problem::without_value(&name, reason));
    }
    known
}

/// A sentence for each variable that looks like a setting and is none, because only names that begin with `SEALPOST__` are
/// read. They are no problems: an orchestrator may have set them for its own use.
pub fn unread_variables(names: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let names = names.into_iter().map(|name| name.to_string_lossy().into_owned());
    let is_similar = |name: &String| {
        let is_ours = |start: &str| start.eq_ignore_ascii_case("SEALPOST_");
        name.get(..9).is_some_and(is_ours) && !name.starts_with(PREFIX)
    };
    let mut names: Vec<String> = names.filter(is_similar).collect();
    names.sort();
    // Kubernetes sets these for each service, and a service may well be called "sealpost".
    let services: Vec<String> = names
        .iter()
        .filter_map(|name| name.strip_suffix("_SERVICE_HOST"))
        .map(Into::into)
        .collect();
    let is_of_service = |name: &str| {
        let rest = |service: &String| name.strip_prefix(service.as_str());
        let is_set = |rest: &str| rest.starts_with("_SERVICE_") || rest.starts_with("_PORT");
        services.iter().filter_map(rest).any(is_set)
    };
    let unread = names.iter().filter(|name| !is_of_service(name)).map(|name| {
        let written = name[9..].to_ascii_uppercase().replace("__", "_");
        let written = written.trim_start_matches('_');
        let meant = |(section, key): &&(&str, &str)| {
            let key = key.to_ascii_uppercase();
            written == key || written == format!("{}_{key}", section.to_ascii_uppercase())
        };
        let meant = KEYS.iter().find(meant).map_or(String::new(), |(section, key)| {
            let name = format!("{section}__{key}").to_ascii_uppercase();
            format!("; did you mean {PREFIX}{name}?")
        });
        format!("{} is not read: settings begin with {PREFIX}{meant}", printable(name))
    });
    unread.collect()
}

/// The defaults, under the file, under the environment, under the command line.
fn merge(
    file: &Table,
    environment: HashMap<String, String>,
    cli: &Cli,
) -> Result<Table, ConfigError> {
    // Values of the environment stay text, `try_parsing` off: it would turn "007" into 7 before the kind of the key is
    // known. Each kind reads text itself, lists at their commas.
    let environment = Environment::with_prefix("SEALPOST")
        .prefix_separator("__")
        .separator("__")
        .source(Some(environment));
    Config::builder()
        .add_source(config::File::from_str(DEFAULT_TEXT, FileFormat::Toml))
        .add_source(config::File::from_str(&file.to_string(), FileFormat::Toml))
        .add_source(environment)
        .set_override_option("server.listen", cli.listen.clone())?
        .set_override_option("server.admin_listen", cli.admin_listen.clone())?
        .build()?
        .try_deserialize()
}

/// Why an unknown name is refused, with the known one that was probably meant.
fn unknown(what: &str, name: &str) -> String {
    let leaf = name.rsplit('.').next();
    let distance = |known: &str| strsim::damerau_levenshtein(known, &name.to_ascii_lowercase());
    let section = KEYS.iter().map(|(section, _)| section).find(|section| distance(section) <= 2);
    let closest = KEYS
        .iter()
        .map(|(section, key)| (format!("{section}.{key}"), Some(*key) == leaf))
        .map(|(full, same_key)| (if same_key { 0 } else { distance(&full) }, full))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    let meant = match (section, closest) {
        (Some(section), _) if what == "key" && !name.contains('.') => {
            format!("the section {section}")
        }
        (_, Some((_, key))) if what == "variable" => {
            format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
        }
        (_, Some((_, key))) => key,
        _ => return format!("unknown {what}"),
    };
    format!("unknown {what}; did you mean {meant}?")
}

#[cfg(test)]
#[path = "tests/variables.rs"]
mod tests;
