//! An operator at the command line: the binary as a client of a running relay.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::binary::sealpost;

/// Runs `sealpost` commands in a directory.
pub struct Operator {
    directory: PathBuf,
    admin: String,
    settings: Vec<(String, String)>,
}

/// What a command printed, and its exit status.
#[derive(Debug)]
pub struct Printed {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Operator {
    /// Of the relay with this admin address: `127.0.0.1:9090` or `unix:/path`.
    pub fn of(admin: impl ToString) -> Self {
        Self { directory: std::env::temp_dir(), admin: admin.to_string(), settings: Vec::new() }
    }

    /// With one more setting: `"SERVER__ADMIN_TOKEN_FILE"`.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.settings.push((format!("SEALPOST__{key}"), value.to_owned()));
        self
    }

    /// In this working directory.
    pub fn at(mut self, directory: &Path) -> Self {
        self.directory = directory.to_owned();
        self
    }

    /// Runs a command to its end.
    pub async fn run(&self, args: &[&str]) -> Printed {
        let mut command = sealpost(&self.directory);
        command.args(args).env("SEALPOST__SERVER__ADMIN_LISTEN", &self.admin);
        command.envs(self.settings.iter().map(|(key, value)| (key, value)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = tokio::task::spawn_blocking(move || command.output());
        let output: Output = output.await.expect("a thread").expect("the binary runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Printed {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// What a command prints; it must succeed.
    pub async fn prints(&self, args: &[&str]) -> String {
        let printed = self.run(args).await;
        assert_eq!(printed.code, Some(0), "{args:?}: {}", printed.stderr);
        printed.stdout
    }

    /// The JSON that a command prints.
    pub async fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.prints(args).await).expect("JSON")
    }
}
