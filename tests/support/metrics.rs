//! `/metrics` as a scraper reads it.

use std::collections::BTreeMap;

use super::{Endpoints, http};

/// The samples of one scrape, by name and labels as they are written: `sealpost_messages_sent_total{type="Ack"}`.
#[derive(Debug)]
pub struct Scrape {
    pub text: String,
    samples: BTreeMap<String, f64>,
}

impl Endpoints {
    /// Scrapes the relay.
    pub async fn scrape(&self) -> Scrape {
        let answer = http::get(self.admin, "/metrics").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        Scrape::read(answer.body)
    }
}

impl Scrape {
    fn read(text: String) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        });
        Self { samples: samples.collect(), text }
    }

    /// The value of a sample.
    #[track_caller]
    pub fn value(&self, name: &str) -> f64 {
        *self.samples.get(name).unwrap_or_else(|| panic!("no {name} in\n{}", self.text))
    }

    /// The sum of all samples of a name, whatever their labels.
    pub fn sum(&self, name: &str) -> f64 {
        let is_of = |sample: &str| {
            sample.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        };
        self.samples.iter().filter(|(sample, _)| is_of(sample)).map(|(_, value)| value).sum()
    }

    /// The names of all families.
    pub fn families(&self) -> Vec<&str> {
        let named = self.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        named.filter_map(|line| line.split(' ').next()).collect()
    }

    /// Every label's value.
    pub fn labels(&self) -> Vec<&str> {
        self.samples.keys().filter_map(|name| name.split('"').nth(1)).collect()
    }
}
