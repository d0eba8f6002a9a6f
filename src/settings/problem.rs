//! Problems of the settings, one sentence each. All are reported at once, so that an operator corrects them in one go.

use std::fmt;

/// One problem: where it is, what was written there, and why that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key (`limits.message_bytes`), the environment variable or the file.
    pub key: String,
    /// The written value, escaped and shortened; `None` where the key itself is the problem.
    pub value: Option<String>,
    /// Why it is refused.
    pub reason: String,
}

impl Problem {
    /// A refused value, as it would be written in the file.
    pub(super) fn with_value(key: &str, value: &impl fmt::Display, reason: String) -> Self {
        Self { value: Some(printable(&value.to_string())), ..Self::without_value(key, reason) }
    }

    /// A refused key or file.
    pub(super) fn without_value(key: &str, reason: String) -> Self {
        Self { key: printable(key), value: None, reason }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {}: {}", self.key, value, self.reason),
            None => write!(f, "{}: {}", self.key, self.reason),
        }
    }
}

/// All problems of the settings, one line each. Never empty in an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Whether the value of `key`, or its section, is among the problems.
    pub(super) fn concern(&self, key: &str) -> bool {
        let section = key.split('.').next();
        self.0.iter().any(|problem| problem.key == key || Some(problem.key.as_str()) == section)
    }

    pub(super) fn add(&mut self, problem: Problem) {
        self.0.push(problem);
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for Problems {}

/// One line of at most 80 characters, in which nothing can move the cursor or start a new line.
pub(super) fn printable(text: &str) -> String {
    let shown = text.char_indices().nth(80).map(|(end, _)| &text[..end]);
    let escape = |c: char| match c {
        '"' | '\'' | '\\' => c.to_string(),
        _ => c.escape_debug().to_string(),
    };
    shown.unwrap_or(text).chars().map(escape).chain(shown.map(|_| "…".to_owned())).collect()
}
