//! The dashboard and the alerts speak of what the relay has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{Relay, skip};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(path(name)).expect("a file of the repository")
}

/// Names of metrics in a text, without what a histogram adds to its name.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let metrics = words.filter(|word| {
        word.starts_with("sealpost_") || word.starts_with("process_") && word.len() > 8
    });
    let metrics = metrics.map(|name| {
        let stem = name.strip_suffix("_bucket").or(name.strip_suffix("_count"));
        stem.or(name.strip_suffix("_sum")).unwrap_or(name).to_owned()
    });
    metrics.collect()
}

fn alerts() -> Vec<String> {
    let rules = text("ops/prometheus/alerts.yml");
    let named = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let named: Vec<String> = named.map(str::to_owned).collect();
    assert!(named.len() > 10, "the alerts were not found");
    named
}

/// The expressions of all panels.
fn expressions(panel: &Value) -> Vec<String> {
    let own = panel["targets"].as_array().into_iter().flatten();
    let own = own.map(|target| target["expr"].as_str().expect("an expression").to_owned());
    let inner = panel["panels"].as_array().into_iter().flatten().flat_map(expressions);
    own.chain(inner).collect()
}

#[actix_rt::test]
async fn every_metric_of_the_dashboard_and_of_the_alerts_is_there() {
    let relay = Relay::start();
    let scrape = relay.scrape().await;
    let there: BTreeSet<String> = scrape.families().into_iter().map(str::to_owned).collect();
    let dashboard: Value =
        serde_json::from_str(&text("ops/grafana/sealpost.json")).expect("the dashboard is JSON");
    let shown = expressions(&dashboard).join("\n");
    assert!(names(&shown).len() > 20, "the panels were not found");
    for (file, names) in [
        ("the dashboard", names(&shown)),
        ("alerts.yml", names(&text("ops/prometheus/alerts.yml"))),
    ] {
        let missing: Vec<_> = names.difference(&there).collect();
        assert!(missing.is_empty(), "{file} names what is not there: {missing:?}");
    }
    // What nobody looks at need not be counted.
    let known = names(&(text("ops/grafana/sealpost.json") + &text("ops/prometheus/alerts.yml")));
    let ours: BTreeSet<String> =
        there.into_iter().filter(|name| name.starts_with("sealpost_")).collect();
    let unused: Vec<_> = ours.difference(&known).collect();
    assert!(unused.is_empty(), "no panel shows {unused:?}");
}

#[test]
fn each_alert_says_what_to_do() {
    let page = text("docs/operations.md");
    for alert in alerts() {
        assert!(page.contains(&format!("### {alert}\n")), "docs/operations.md has no {alert}");
    }
    let described = page.lines().filter_map(|line| line.strip_prefix("### Sealpost")).count();
    assert_eq!(described, alerts().len(), "docs/operations.md describes an alert that is gone");
}

#[test]
fn each_alert_fires_on_what_it_is_for_and_on_nothing_else() {
    let run = |args: [&str; 3]| {
        let tool = Command::new("promtool").args(args).current_dir(path("ops/prometheus")).output();
        let output = tool.ok()?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{text}");
        Some(())
    };
    let checked = run(["check", "rules", "alerts.yml"]);
    if checked.and_then(|()| run(["test", "rules", "alerts_test.yml"])).is_none() {
        return skip("promtool is not installed (Debian package prometheus)");
    }
    let tested = text("ops/prometheus/alerts_test.yml");
    for alert in alerts() {
        assert!(tested.contains(&format!("  - name: {alert}\n")), "{alert} has no test");
    }
}

#[test]
fn each_incident_of_the_log_is_explained() {
    let page = text("docs/operations.md");
    for incident in sealpost::client_log::Incident::ALL {
        let row = format!("| `{}` |", incident.text());
        assert!(page.contains(&row), "docs/operations.md does not explain: {row}");
    }
    // What the relay itself says must be somewhere in the sources.
    let table = page.split("What the relay itself has to say:").nth(1).expect("a table");
    let table = table.split("\n## ").next().unwrap_or_default();
    let mut sources = String::new();
    let mut folders = vec![path("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                sources.push_str(&fs::read_to_string(path).expect("a source"));
            }
        }
    }
    let lines: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")).collect();
    assert!(lines.len() >= 9);
    for line in lines {
        let said = line.split('`').next().unwrap_or_default();
        assert!(sources.contains(said), "nothing says: {said}");
    }
}
