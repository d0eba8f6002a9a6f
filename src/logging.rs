//! The log: one line for one thing, which nothing a client sends can break in two.
//!
//! `env_logger` writes the lines. Its own filter cannot change while the relay runs, so a filter of the
//! same language stands before it, behind a lock that is taken only for lines the most talkative
//! target would log. What is logged is the caller's duty: never a payload, a key or a token, and what
//! a client chose only through [`shorten_and_escape`].

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use env_filter::Filter;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::settings::{LogFormat, Settings};

/// Characters of a client's text that are logged; ids fit, floods do not.
const LONGEST_TEXT: usize = 64;

/// Characters of a message that are logged, whoever wrote it: the last guard against a flood.
const LONGEST_MESSAGE: usize = 4096;

/// The path at which devices connect, for the lines a newcomer sees.
const WEBSOCKET_PATH: &str = "/ws";

/// Starts logging to standard error as `settings.log` says. `RUST_LOG` wins over `log.level` where it
/// is set and can be read; `RUST_LOG_STYLE` (`auto`, `always`, `never`) decides about colour.
///
/// A process has one log: a second call changes its level and no more.
pub fn init(settings: &Settings) -> LogHandle {
    static GATE: OnceLock<Arc<ReloadableFilter>> = OnceLock::new();
    let gate = GATE.get_or_init(|| {
        let gate = Arc::new(ReloadableFilter {
            filter: RwLock::new(env_filter::Builder::new().build()),
            writer: writer(settings.log.format),
        });
        if log::set_boxed_logger(Box::new(Arc::clone(&gate))).is_err() {
            // Someone else's logger was first: a test harness. It keeps its own rules.
        }
        gate
    });
    let rust_log = std::env::var("RUST_LOG").ok();
    let (chosen, unreadable) = choose(rust_log);
    let handle = LogHandle { gate: Arc::clone(gate), rust_log: chosen };
    handle.apply(settings);
    if let Some(unreadable) = unreadable {
        let value = shorten_and_escape(&unreadable);
        log::warn!("RUST_LOG is no log filter, so log.level decides: RUST_LOG=\"{value}\"");
    }
    handle
}

/// The running log, for a reload.
#[derive(Clone)]
pub struct LogHandle {
    gate: Arc<ReloadableFilter>,
    /// The filter of the environment, which wins over every `log.level`.
    rust_log: Option<String>,
}

impl LogHandle {
    /// Takes over `log.level`, unless `RUST_LOG` decides. The format stays; it needs a restart.
    pub fn apply(&self, settings: &Settings) {
        let text = self.rust_log.as_deref().unwrap_or(&settings.log.level);
        let mut builder = env_filter::Builder::new();
        if builder.try_parse(text).is_err() {
            // Checked settings do not come here; the running filter is better than none.
            return;
        }
        let filter = builder.build();
        let most = filter.filter();
        *self.gate.filter.write().unwrap_or_else(PoisonError::into_inner) = filter;
        log::set_max_level(most);
    }

    /// The most talkative level any target has now.
    #[must_use]
    pub fn max_level(&self) -> LevelFilter {
        self.gate.filter.read().unwrap_or_else(PoisonError::into_inner).filter()
    }
}

/// `RUST_LOG` if it decides, and `RUST_LOG` if it was meant to and cannot be read.
fn choose(rust_log: Option<String>) -> (Option<String>, Option<String>) {
    match rust_log {
        Some(text) if text.trim().is_empty() => (None, None),
        Some(text) if env_filter::Builder::new().try_parse(&text).is_err() => (None, Some(text)),
        other => (other, None),
    }
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
        }
    }

    fn flush(&self) {
        self.writer.flush();
    }
}

/// What writes lines: everything it is given, in the given format.
fn writer(format: LogFormat) -> env_logger::Logger {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(LevelFilter::Trace);
    match format {
        LogFormat::Text => {
            if let Ok(style) = std::env::var("RUST_LOG_STYLE") {
                builder.parse_write_style(&style);
            }
            builder.format(|out, record| {
                let time = out.timestamp_millis();
                let level = record.level();
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

/// The end of a line of text: target and message.
fn text_line(out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    let target = escaped(record.target(), LONGEST_TEXT, false);
    let message = escaped(&record.args().to_string(), LONGEST_MESSAGE, false);
    writeln!(out, "{target}: {message}")
}

/// What a JSON line has, in this order, and nothing else.
#[derive(serde::Serialize)]
struct JsonLine<'a> {
    ts: &'a str,
    level: &'a str,
    target: &'a str,
    message: &'a str,
}

/// One JSON object and a line feed. JSON escapes the C0 controls itself; whatever else does not print
/// (C1 controls, bidirectional overrides, line separators) is escaped here.
fn json_line(time: &str, record: &Record<'_>) -> String {
    let mut message = record.args().to_string();
    if let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) {
        message.truncate(end);
        message.push('…');
    }
    let level = match record.level() {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let object = JsonLine { ts: time, level, target: record.target(), message: &message };
    // Four texts always have a JSON form, so there is no error to report.
    let object = serde_json::to_string(&object).unwrap_or_default();
    let mut line = String::with_capacity(object.len() + 1);
    for c in object.chars() {
        if matches!(c, '"' | '\'' | '\\') || prints(c) {
            line.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` cannot fail.
                let _ = write!(line, "\\u{unit:04x}");
            }
        }
    }
    line.push('\n');
    line
}

/// What a client chose (a type, an id, a header), fit for a log line: shortened to 64 characters, with
/// quotes, backslashes and everything that does not print escaped, so that it can stand between quotes
/// and cannot begin a line, move a cursor or hide what follows. What was cut off is said in bytes.
#[must_use]
pub fn shorten_and_escape(text: &str) -> String {
    escaped(text, LONGEST_TEXT, true)
}

/// At most `longest` characters of `text`, escaped; with `quotes`, also quotes and backslashes. The
/// work is bounded by `longest`, not by the length of the text.
fn escaped(text: &str, longest: usize, quotes: bool) -> String {
    let mut line = String::new();
    for (nth, (at, c)) in text.char_indices().enumerate() {
        if nth == longest {
            let _ = write!(line, "…({} bytes more)", text.len() - at);
            break;
        }
        match c {
            '\'' => line.push(c),
            '"' | '\\' if !quotes => line.push(c),
            _ => line.extend(c.escape_debug()),
        }
    }
    line
}

/// Whether a character shows as itself, and as one character.
fn prints(c: char) -> bool {
    c.escape_debug().len() == 1
}

/// What a newcomer sees at the start: where the relay listens, what to try, where its health is. One
/// line each, without a line feed at the end.
///
/// With port 0 the caller puts the port the system chose into `settings` first.
#[must_use]
pub fn first_lines(settings: &Settings) -> String {
    let listen = reachable(settings.server.listen);
    let admin = reachable(settings.server.admin_listen);
    format!(
        "sealpost {} is listening on {}\n\
         try it: echo '{{\"type\":\"Register\"}}' | websocat --no-close ws://{listen}{WEBSOCKET_PATH}\n\
         health: http://{admin}/healthz",
        env!("CARGO_PKG_VERSION"),
        settings.server.listen,
    )
}

/// An address one can connect to from this machine: "any address" is reached by loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The warning for a relay that speaks plain HTTP to everyone, or `None` if it does not: devices
/// connect to an address beyond loopback, and no proxy that could do TLS is named.
#[must_use]
pub fn exposure(settings: &Settings) -> Option<String> {
    let listen = settings.server.listen;
    if listen.ip().to_canonical().is_loopback() || !settings.server.trusted_proxies.is_empty() {
        return None;
    }
    Some(format!(
        "PLAIN HTTP ON A PUBLIC ADDRESS: server.listen={listen} has no TLS, so everyone on the way sees who talks \
         to whom, and resume tokens; put a TLS proxy in front and name it in server.trusted_proxies, or \
         listen on 127.0.0.1"
    ))
}

/// Logs [`exposure`] as a warning. To be called once, at the start.
pub fn warn_of_exposure(settings: &Settings) {
    if let Some(warning) = exposure(settings) {
        log::warn!("{warning}");
    }
}

/// A panic's own words may quote what a client sent; the log gets the place alone.
pub fn say_only_where_a_panic_was() {
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => log::error!("panic at={}:{}", place.file(), place.line()),
        None => log::error!("panic"),
    }));
}

#[cfg(test)]
mod tests {
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

    fn settings(listen: &str, proxies: &[&str]) -> Settings {
        let mut settings = Settings::default();
        settings.server.listen = listen.parse().expect("an address");
        settings.server.trusted_proxies =
            proxies.iter().map(|proxy| proxy.parse().expect("a network")).collect();
        settings
    }

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
    fn the_gate_lets_through_what_the_filter_names_and_changes_while_running() {
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
    fn rust_log_decides_only_if_it_says_something_readable() {
        assert_eq!(choose(None), (None, None));
        assert_eq!(choose(Some(" ".to_owned())), (None, None));
        assert_eq!(choose(Some("debug".to_owned())), (Some("debug".to_owned()), None));
        assert_eq!(choose(Some("a=b=c".to_owned())), (None, Some("a=b=c".to_owned())));
    }

    #[test]
    fn the_first_lines_say_where_it_listens_what_to_try_and_where_health_is() {
        let lines = first_lines(&settings("0.0.0.0:8081", &[]));
        assert_eq!(lines.lines().count(), 3);
        assert!(lines.contains("listening on 0.0.0.0:8081"));
        assert!(lines.contains("websocat") && lines.contains("ws://127.0.0.1:8081/ws"));
        assert!(lines.contains("http://127.0.0.1:9090/healthz"));
        assert!(first_lines(&settings("[::]:8081", &[])).contains("ws://[::1]:8081/ws"));
    }

    #[test]
    fn plain_http_on_a_public_address_is_warned_of() {
        for public in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080", "[2001:db8::1]:8080"] {
            assert!(
                exposure(&settings(public, &[])).is_some_and(|warning| warning.contains(public))
            );
        }
    }

    #[test]
    fn loopback_and_a_named_proxy_are_no_exposure() {
        for private in ["127.0.0.1:8080", "127.9.9.9:1", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
            assert_eq!(exposure(&settings(private, &[])), None, "{private}");
        }
        assert_eq!(exposure(&settings("0.0.0.0:8080", &["10.0.0.0/8"])), None);
    }
}
