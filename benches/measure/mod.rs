//! What the benches of tasks have in common.

use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Throughput};
use kstreams::{Result, SingleTask};

/// Measures rounds of so many records; the commit behind each is not counted.
pub(crate) fn rounds(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    records: usize,
    task: &mut SingleTask,
    mut round: impl FnMut(&mut SingleTask) -> Result<()>,
) {
    group.throughput(Throughput::Elements(records as u64));
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|count| {
            let mut taken = Duration::ZERO;
            for _ in 0..count {
                let start = Instant::now();
                round(task).expect("a round");
                taken += start.elapsed();
                task.commit().expect("a commit");
            }
            taken
        });
    });
}
