//! Remembers what the metrics say, of every application of the process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Label, Metadata, Recorder, SharedString, Unit,
    set_global_recorder,
};

/// The recorder of the process, installed at the first call.
pub(crate) fn recording() -> &'static Recording {
    static INSTALLED: OnceLock<Recording> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let recording = Recording::default();
        set_global_recorder(recording.clone()).unwrap();
        recording
    })
}

#[derive(Clone, Default)]
pub(crate) struct Recording(Arc<Mutex<Vec<(Key, Recorded)>>>);

#[derive(Clone)]
enum Recorded {
    Counter(Arc<AtomicU64>),
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Observations>),
}

#[derive(Default)]
struct Observations(AtomicU64);

impl HistogramFn for Observations {
    fn record(&self, _value: f64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Recording {
    fn register(&self, key: &Key, recorded: impl FnOnce() -> Recorded) -> Recorded {
        let mut all = self.0.lock().unwrap();
        if let Some((_, known)) = all.iter().find(|(known, _)| known == key) {
            return known.clone();
        }
        let recorded = recorded();
        all.push((key.clone(), recorded.clone()));
        recorded
    }

    fn of(&self, application: &str, name: &str) -> Vec<(Key, Recorded)> {
        // The name of a thread and that of a client begin with the application.
        let prefix = format!("{application}-");
        let is_meant = |key: &Key| key.name() == name && key.labels().any(|label| label.value().starts_with(&prefix));
        self.0.lock().unwrap().iter().filter(|(key, _)| is_meant(key)).cloned().collect()
    }

    /// What all counters, gauges or histograms (their observations) of a name say together; none if there are none.
    pub(crate) fn total(&self, application: &str, name: &str) -> Option<f64> {
        let values = self.of(application, name).into_iter().map(|(_, recorded)| match recorded {
            Recorded::Counter(value) => value.load(Ordering::SeqCst) as f64,
            Recorded::Gauge(value) => f64::from_bits(value.load(Ordering::SeqCst)),
            Recorded::Histogram(observations) => observations.0.load(Ordering::SeqCst) as f64,
        });
        values.reduce(|sum, value| sum + value)
    }

    /// The names of the labels of each metric of a name.
    pub(crate) fn labels(&self, application: &str, name: &str) -> Vec<Vec<String>> {
        let labels = |key: &Key| key.labels().map(Label::key).map(str::to_owned).collect();
        self.of(application, name).iter().map(|(key, _)| labels(key)).collect()
    }
}

impl Recorder for Recording {
    fn describe_counter(&self, _name: KeyName, _unit: Option<Unit>, _text: SharedString) {}

    fn describe_gauge(&self, _name: KeyName, _unit: Option<Unit>, _text: SharedString) {}

    fn describe_histogram(&self, _name: KeyName, _unit: Option<Unit>, _text: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.register(key, || Recorded::Counter(Arc::default())) {
            Recorded::Counter(value) => Counter::from_arc(value),
            Recorded::Gauge(_) | Recorded::Histogram(_) => panic!("{key} is no counter"),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.register(key, || Recorded::Gauge(Arc::default())) {
            Recorded::Gauge(value) => Gauge::from_arc(value),
            Recorded::Counter(_) | Recorded::Histogram(_) => panic!("{key} is no gauge"),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.register(key, || Recorded::Histogram(Arc::default())) {
            Recorded::Histogram(value) => Histogram::from_arc(value),
            Recorded::Counter(_) | Recorded::Gauge(_) => panic!("{key} is no histogram"),
        }
    }
}
