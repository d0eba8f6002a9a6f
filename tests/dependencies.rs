//! The dependencies: all come from the registry, and each licence asks only for a notice.

use std::process::Command;

use serde_json::Value;

/// Licences that a binary with either of ours may carry.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

fn packages() -> Vec<Value> {
    let run = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .expect("cargo runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let mut metadata: Value = serde_json::from_slice(&run.stdout).expect("JSON");
    let Value::Array(packages) = metadata["packages"].take() else { panic!("no packages") };
    let members = metadata["workspace_members"].as_array().expect("the workspace has members");
    packages.into_iter().filter(|package| !members.contains(&package["id"])).collect()
}

#[test]
fn every_dependency_comes_from_the_registry() {
    for package in packages() {
        let source = package["source"].as_str().unwrap_or("a path");
        assert!(source.starts_with("registry+"), "{} comes from {source}", package["id"]);
    }
}

#[test]
fn every_licence_is_a_permissive_one() {
    let packages = packages();
    assert!(packages.len() > 50, "the dependencies were not found");
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(is_permitted(licence), "{} is licensed under {licence}", package["id"]);
    }
}

/// Each part of an `AND` must be permitted, one of each `OR`. Parentheses stand around `OR` only, as far as is known.
fn is_permitted(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    expression.split(" AND ").all(|part| {
        let part = part.trim().trim_start_matches('(').trim_end_matches(')');
        part.split(" OR ").any(|licence| LICENCES.contains(&licence.trim()))
    })
}

#[test]
fn licence_expressions_are_read_as_they_are_meant() {
    for good in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
        assert!(is_permitted(good), "{good}");
    }
    for bad in ["none", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Apache-2.0) AND OpenSSL"] {
        assert!(!is_permitted(bad), "{bad}");
    }
}
