//! Metric families, built at each scrape from plain numbers.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as Buckets, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::metrics::histogram::Histogram;

/// The families of one scrape.
#[derive(Default)]
pub(super) struct Families(Vec<MetricFamily>);

impl Families {
    /// A number that only grows.
    pub fn counter(&mut self, name: &str, help: &str, count: u64) {
        self.add(name, help, MetricType::COUNTER, vec![counter(count, Vec::new())]);
    }

    /// Numbers that only grow, by the value of one label.
    pub fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        counts: impl IntoIterator<Item = (&'static str, u64)>,
    ) {
        let metrics = counts.into_iter().map(|(value, count)| counter(count, pair(label, value)));
        self.add(name, help, MetricType::COUNTER, metrics.collect());
    }

    /// A number that rises and falls.
    pub fn number(&mut self, name: &str, help: &str, number: f64) {
        self.add(name, help, MetricType::GAUGE, vec![gauge(number, Vec::new())]);
    }

    /// Numbers that rise and fall, by the value of one label.
    pub fn gauge<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        numbers: [(&str, f64); N],
        label: &str,
    ) {
        let metrics = numbers.map(|(value, number)| gauge(number, pair(label, value)));
        self.add(name, help, MetricType::GAUGE, metrics.into());
    }

    /// Times.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        let mut buckets = Buckets::default();
        buckets.set_sample_count(histogram.count());
        buckets.set_sample_sum(histogram.sum_seconds());
        let bucket = |(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        };
        buckets.set_bucket(histogram.cumulative().map(bucket).collect());
        let mut metric = Metric::default();
        metric.set_histogram(buckets);
        self.add(name, help, MetricType::HISTOGRAM, vec![metric]);
    }

    pub fn extend(&mut self, families: Vec<MetricFamily>) {
        self.0.extend(families);
    }

    /// All families, in the order of their names.
    pub fn sorted(mut self) -> Vec<MetricFamily> {
        self.0.sort_by(|one, other| one.name().cmp(other.name()));
        self.0
    }

    fn add(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }
}

fn pair(name: &str, value: &str) -> Vec<LabelPair> {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    vec![pair]
}

fn counter(count: u64, labels: Vec<LabelPair>) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(count as f64);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

fn gauge(number: f64, labels: Vec<LabelPair>) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(number);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}
