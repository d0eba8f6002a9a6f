//! The log: one line for each event. Nothing that a client sends can break a line in two.
//!
//! `env_logger` writes the lines. Its own filter cannot change while the relay runs, so a filter of the same language
//! stands before it, behind a lock that is taken only for lines that the most verbose target would log. Callers log no
//! payload, key or token, and a client's text only through [`shorten_and_escape`].

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use env_filter::Filter;
use log::kv::{self, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};

use crate::settings::{LogFormat, Settings, is_log_filter};

/// Characters of a client's text that are logged: enough for ids.
const LONGEST_TEXT: usize = 64;

/// Characters of a message that are logged: the last guard against a flood.
const LONGEST_MESSAGE: usize = 4096;

/// Starts logging to standard error according to `settings.log`. `RUST_LOG` wins over `log.level` if it
/// is set and can be read; `RUST_LOG_STYLE` (`auto`, `always`, `never`) decides about colour.
///
/// A process has one log: a second call changes only its level.
pub fn init(settings: &Settings) -> LogHandle {
    static GATE: OnceLock<Arc<ReloadableFilter>> = OnceLock::new();
    let gate = GATE.get_or_init(|| {
        let gate = Arc::new(ReloadableFilter {
            filter: RwLock::new(env_filter::Builder::new().build()),
            writer: writer(settings.log.format),
        });
        if log::set_boxed_logger(Box::new(Arc::clone(&gate))).is_err() {
            // Another logger was installed first, by a test harness. That logger keeps its own filter.
        }
        gate
    });
    let (rust_log, unreadable) = choose(rust_log());
    let handle = LogHandle { gate: Arc::clone(gate), rust_log };
    handle.apply(settings);
    if let Some(unreadable) = unreadable {
        log::warn!("{}", unreadable_rust_log(&unreadable));
    }
    handle
}

/// Why `RUST_LOG` does not decide although it is set; `None` if there is no mistake in it.
pub fn mistake_in_rust_log() -> Option<String> {
    choose(rust_log()).1.map(|text| unreadable_rust_log(&text))
}

fn rust_log() -> Option<String> {
    // A value that is not UTF-8 is no filter either.
    std::env::var_os("RUST_LOG").map(|value| value.to_string_lossy().into_owned())
}

fn unreadable_rust_log(text: &str) -> String {
    let value = shorten_and_escape(text);
    format!("RUST_LOG is no log filter, so log.level decides: RUST_LOG=\"{value}\"")
}

/// The running log, for a reload.
#[derive(Clone)]
pub struct LogHandle {
    gate: Arc<ReloadableFilter>,
    /// The filter of the environment, which wins over every `log.level`.
    rust_log: Option<String>,
}

impl LogHandle {
    /// Applies `log.level`, unless `RUST_LOG` decides. A change of the format needs a restart.
    pub fn apply(&self, settings: &Settings) {
        let text = self.rust_log.as_deref().unwrap_or(&settings.log.level);
        let mut builder = env_filter::Builder::new();
        if builder.try_parse(text).is_err() {
            // Checked settings always have a valid filter. If not, the running filter stays.
            return;
        }
        *self.gate.filter.write().unwrap_or_else(PoisonError::into_inner) = builder.build();
        log::set_max_level(self.max_level());
    }

    /// The most verbose level of any target.
    pub fn max_level(&self) -> LevelFilter {
        self.gate.filter.read().unwrap_or_else(PoisonError::into_inner).filter()
    }
}

/// The filter of `RUST_LOG` if it is valid, and the text of `RUST_LOG` if it cannot be read.
fn choose(rust_log: Option<String>) -> (Option<String>, Option<String>) {
    match rust_log {
        Some(text) if text.trim().is_empty() => (None, None),
        Some(text) if !is_log_filter(&text, is_target) => (None, Some(text)),
        other => (other, None),
    }
}

/// Whether a bare word of `RUST_LOG` is a target: it sets all levels of that target. Other programs may share the variable,
/// but a word that names nothing here would switch the log off.
fn is_target(word: &str) -> bool {
    word.is_empty() || ["sealpost", "actix", "tokio"].iter().any(|name| word.starts_with(name))
}

/// The filter that can change, before the writer that cannot.
struct ReloadableFilter {
    filter: RwLock<Filter>,
    writer: env_logger::Logger,
}

impl Log for ReloadableFilter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.read().unwrap_or_else(PoisonError::into_inner).enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let wanted = self.filter.read().unwrap_or_else(PoisonError::into_inner).matches(record);
        if wanted {
            self.writer.log(record);
            if record.level() <= log::Level::Warn {
                remember(record);
            }
        }
    }

    fn flush(&self) {
        self.writer.flush();
    }
}

/// A warning or an error that was logged.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Logged {
    /// Unix seconds.
    pub at: u64,
    pub level: &'static str,
    /// Shortened, on one line.
    pub message: String,
}

/// The newest warnings and errors, the oldest first.
static RECENT: Mutex<VecDeque<Logged>> = Mutex::new(VecDeque::new());
/// How many of them are kept.
const RECENT_LINES: usize = 10;
/// Characters that are kept of each.
const RECENT_CHARACTERS: usize = 300;

/// The newest warnings and errors, the oldest first; for an operator who looks at a relay that runs.
pub fn recent() -> Vec<Logged> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

fn remember(record: &Record<'_>) {
    let message = with_fields(record);
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let level = record.level().as_str();
    let message = message.chars().take(RECENT_CHARACTERS).flat_map(char::escape_debug).collect();
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    if recent.len() == RECENT_LINES {
        recent.pop_front();
    }
    recent.push_back(Logged { at, level, message });
}

/// Writes every record that it receives, in the given format.
fn writer(format: LogFormat) -> env_logger::Logger {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(LevelFilter::Trace);
    match format {
        LogFormat::Text => {
            if let Ok(style) = std::env::var("RUST_LOG_STYLE") {
                builder.parse_write_style(&style);
            }
            builder.format(|out, record| {
                let (time, level) = (out.timestamp_millis(), record.level());
                let style = out.default_level_style(level);
                write!(out, "{time} {style}{level:<5}{style:#} ")?;
                text_line(out, record)
            });
        }
        LogFormat::Json => {
            builder.write_style(env_logger::WriteStyle::Never);
            builder.format(|out, record| {
                let time = out.timestamp_millis().to_string();
                out.write_all(json_line(&time, record).as_bytes())
            });
        }
    }
    builder.build()
}

/// The end of a line of text: target, message, and the fields as ` key=value`.
fn text_line(out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    let message = with_fields(record);
    let target = Escaped { longest: LONGEST_TEXT, ..Escaped::line(record.target()) };
    writeln!(out, "{target}: {}", Escaped::line(&message))
}

/// The message, and behind it the fields as ` key=value`.
fn with_fields(record: &Record<'_>) -> String {
    struct Text(String);
    impl<'kvs> VisitSource<'kvs> for Text {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
            // Writing to a String cannot fail.
            let _ = write!(self.0, " {key}={value}");
            Ok(())
        }
    }
    let mut text = Text(record.args().to_string());
    let _ = record.key_values().visit(&mut text);
    text.0
}

/// The fields, numbers and truth values as such and all else as text. A text is as long as a message at most.
#[derive(Default)]
struct Fields(serde_json::Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let value = match (value.to_bool(), value.to_u64(), value.to_i64()) {
            (Some(truth), ..) => truth.into(),
            (_, Some(number), _) => number.into(),
            (.., Some(number)) => number.into(),
            _ => shortened(value.to_string()).into(),
        };
        self.0.insert(key.to_string(), value);
        Ok(())
    }
}

fn shortened(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) {
        message.truncate(end);
        message.push('…');
    }
    message
}

/// One JSON object and a line feed; a record's fields stand beside its message. `serde_json` escapes quotes and C0 controls; all other characters that do not print
/// (C1 controls, bidirectional overrides, line separators) are escaped after it.
fn json_line(time: &str, record: &Record<'_>) -> String {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        ts: &'a str,
        level: &'a str,
        target: &'a str,
        message: &'a str,
        #[serde(flatten)]
        fields: serde_json::Map<String, serde_json::Value>,
    }
    let message = shortened(record.args().to_string());
    let mut fields = Fields::default();
    let _ = record.key_values().visit(&mut fields);
    let Fields(fields) = fields;
    let level = record.level().as_str().to_ascii_lowercase();
    let object =
        Line { ts: time, level: &level, target: record.target(), message: &message, fields };
    // Texts, numbers and truth values always have a JSON form, so there is no error to report.
    let object = serde_json::to_string(&object).unwrap_or_default();
    format!("{}\n", Escaped { longest: usize::MAX, escape: json_escape, ..Escaped::line(&object) })
}

/// A text that a client chose (a type, an id, a header), fit to stand between quotes in a log line: at most 64
/// characters, with quotes and backslashes escaped as well.
pub fn shorten_and_escape(text: &str) -> String {
    Escaped { longest: LONGEST_TEXT, kept: "'", ..Escaped::line(text) }.to_string()
}

/// At most `longest` characters of a text. A character that does not print is escaped, so that the text cannot begin a
/// line, move a cursor or hide what follows. The work is bounded by `longest`, not by the length of the text.
struct Escaped<'a> {
    text: &'a str,
    longest: usize,
    /// Characters that are never escaped.
    kept: &'static str,
    escape: fn(char, &mut fmt::Formatter<'_>) -> fmt::Result,
}

impl<'a> Escaped<'a> {
    fn line(text: &'a str) -> Self {
        Self { text, longest: LONGEST_MESSAGE, kept: "\"'\\", escape: text_escape }
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, (at, c)) in self.text.char_indices().enumerate() {
            if nth == self.longest {
                return write!(f, "…({} bytes more)", self.text.len() - at);
            }
            if self.kept.contains(c) || prints(c) {
                f.write_char(c)?;
            } else {
                (self.escape)(c, f)?;
            }
        }
        Ok(())
    }
}

/// Whether a character shows as itself, and as one character.
fn prints(c: char) -> bool {
    c.escape_debug().len() == 1
}

fn text_escape(c: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{}", c.escape_debug())
}

fn json_escape(c: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(f, "\\u{unit:04x}"))
}

/// Logs the place of a panic and not its message, which may quote a client.
pub fn log_only_the_place_of_a_panic() {
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => {
            log::error!(at:% = format_args!("{}:{}", place.file(), place.line()); "panic")
        }
        None => log::error!("panic"),
    }));
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    fn with_record<T>(message: &str, look: impl FnOnce(&Record<'_>) -> T) -> T {
        look(
            &Record::builder()
                .level(Level::Warn)
                .target("sealpost::web")
                .args(format_args!("{message}"))
                .build(),
        )
    }

    fn text(message: &str) -> String {
        let mut out = Vec::new();
        with_record(message, |record| text_line(&mut out, record))
            .expect("writing to memory works");
        String::from_utf8(out).expect("lines are UTF-8")
    }

    fn json(message: &str) -> String {
        with_record(message, |record| json_line("2026-01-02T03:04:05.678Z", record))
    }

    const HOSTILE: &str = "a\r\nb\u{1b}[2Jc\u{9b}31md\u{202e}e\u{2028}f\u{7f}g\0";

    #[test]
    fn a_hostile_message_stays_one_line_of_text() {
        let line = text(HOSTILE);
        assert_eq!(
            line,
            "sealpost::web: a\\r\\nb\\u{1b}[2Jc\\u{9b}31md\\u{202e}e\\u{2028}f\\u{7f}g\\0\n"
        );
    }

    #[test]
    fn a_hostile_message_stays_one_line_of_json_and_reads_back() {
        let line = json(HOSTILE);
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1);
        assert!(line.trim_end().chars().all(prints_or_quotes), "{line:?}");
        let object: serde_json::Value = serde_json::from_str(&line).expect("a JSON object");
        assert_eq!(object["message"], HOSTILE);
    }

    fn prints_or_quotes(c: char) -> bool {
        prints(c) || matches!(c, '"' | '\\')
    }

    #[test]
    fn a_json_line_has_ts_level_target_message_and_nothing_else() {
        assert_eq!(
            json("hello \"you\" é 🦀"),
            "{\"ts\":\"2026-01-02T03:04:05.678Z\",\"level\":\"warn\",\"target\":\"sealpost::web\",\
             \"message\":\"hello \\\"you\\\" é 🦀\"}\n"
        );
    }

    #[test]
    fn plain_messages_are_not_changed() {
        assert_eq!(text("conn=7 close=1008 é \"x\""), "sealpost::web: conn=7 close=1008 é \"x\"\n");
    }

    #[test]
    fn a_flood_is_cut_in_both_formats() {
        let flood = "x".repeat(65_536);
        assert!(text(&flood).len() < 4200);
        assert!(json(&flood).len() < 4300);
        let short = shorten_and_escape(&flood);
        assert_eq!(short, format!("{}…(65472 bytes more)", "x".repeat(64)));
        assert!(shorten_and_escape(&"\u{10ffff}".repeat(65_536)).len() < 1000);
    }

    #[test]
    fn a_clients_text_can_stand_between_quotes() {
        assert_eq!(shorten_and_escape("a\"b\\c\r\nd"), "a\\\"b\\\\c\\r\\nd");
        assert_eq!(shorten_and_escape(""), "");
        assert_eq!(shorten_and_escape("é🦀"), "é🦀");
    }

    #[test]
    fn the_reloadable_filter_passes_only_matching_records_and_changes_while_running() {
        let gate = Arc::new(ReloadableFilter {
            filter: RwLock::new(env_filter::Builder::new().build()),
            writer: env_logger::Builder::new().filter_level(LevelFilter::Trace).build(),
        });
        let handle = LogHandle { gate: Arc::clone(&gate), rust_log: None };
        let is_on = |level, target: &'static str| {
            gate.enabled(&Metadata::builder().level(level).target(target).build())
        };

        let mut settings = Settings::default();
        handle.apply(&settings);
        assert!(is_on(Level::Info, "sealpost::web") && !is_on(Level::Debug, "sealpost::web"));

        settings.log.level = "warn,sealpost::web=debug".to_owned();
        handle.apply(&settings);
        assert!(is_on(Level::Debug, "sealpost::web") && !is_on(Level::Info, "sealpost::actors"));
        assert_eq!(handle.max_level(), LevelFilter::Debug);

        settings.log.level = "===".to_owned();
        handle.apply(&settings);
        assert_eq!(
            handle.max_level(),
            LevelFilter::Debug,
            "a filter that cannot be read changes nothing"
        );

        let overruled = LogHandle { gate: Arc::clone(&gate), rust_log: Some("error".to_owned()) };
        settings.log.level = "trace".to_owned();
        overruled.apply(&settings);
        assert_eq!(overruled.max_level(), LevelFilter::Error, "RUST_LOG wins");
    }

    #[test]
    fn rust_log_decides_only_if_it_is_a_valid_filter() {
        assert_eq!(choose(None), (None, None));
        assert_eq!(choose(Some(" ".to_owned())), (None, None));
        assert_eq!(choose(Some("debug".to_owned())), (Some("debug".to_owned()), None));
        for good in ["sealpost", "sealpost::web,info", "debug,", "info/text", "hyper=off"] {
            assert_eq!(choose(Some(good.to_owned())), (Some(good.to_owned()), None));
        }
        for bad in ["a=b=c", "inof", "info,debgu", "\u{fffd}"] {
            assert_eq!(choose(Some(bad.to_owned())), (None, Some(bad.to_owned())));
        }
    }
}
