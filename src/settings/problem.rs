//! Problems of the settings, one sentence each. All are reported at once, so that an operator corrects them in one go.

use std::fmt;

/// One thing that is wrong: where, what was written there, and why it cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key (`limits.message_bytes`), the environment variable or the file.
    pub key: String,
    /// What was written, escaped and shortened; `None` where the key itself is the problem.
    pub value: Option<String>,
    /// Why it is refused.
    pub reason: String,
}

impl Problem {
    /// A value that cannot be; `value` is printable as it would be written in the file.
    pub(super) fn with_value(
        key: &str,
        value: &impl fmt::Display,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            key: printable(key),
            value: Some(printable(&value.to_string())),
            reason: reason.into(),
        }
    }

    /// A key or file that cannot be.
    pub(super) fn without_value(key: &str, reason: impl Into<String>) -> Self {
        Self { key: printable(key), value: None, reason: reason.into() }
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

/// Everything that is wrong with the settings, one line each. Never empty where it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

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
        for (nth, problem) in self.0.iter().enumerate() {
            if nth > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// One shortened line in which nothing can move the cursor or start a new line.
pub(super) fn printable(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut line = String::new();
    for (nth, c) in text.chars().enumerate() {
        if nth == LONGEST {
            line.push('…');
            break;
        }
        match c {
            '"' | '\'' | '\\' => line.push(c),
            _ => line.extend(c.escape_debug()),
        }
    }
    line
}
