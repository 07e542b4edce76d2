//! What a record costs the allocator once everything is warm. A binary of its own, because it replaces the allocator.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a panic in a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use kstreams::*;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: hands every call to the system's allocator as it came.
#[expect(unsafe_code, reason = "an allocator cannot be written without; the library itself has none here")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const RECORDS: usize = 1_000;

/// Allocations per record of topic `in`, after as many records to warm up.
fn per_record(wire: impl FnOnce(&StreamsBuilder), bytes: &[u8]) -> f64 {
    let builder = StreamsBuilder::new();
    wire(&builder);
    let topology = builder.build().unwrap();
    let mut task = SingleTask::new(&topology, 0).unwrap();
    let keys: Vec<[u8; 8]> = (0..RECORDS as i64).map(|number| (number % 100).to_be_bytes()).collect();
    let mut feed = |topic: &str| {
        let Some(input) = task.input(topic) else { return };
        let records = keys.iter().map(|key| (if bytes.len() == 8 { &key[..] } else { bytes }, bytes));
        assert_eq!(task.run(input, records).unwrap(), RECORDS);
    };
    feed("table");
    feed("in");
    feed("in");
    let before = ALLOCATIONS.with(Cell::get);
    feed("in");
    (ALLOCATIONS.with(Cell::get) - before) as f64 / RECORDS as f64
}

const LONG: [u8; 8] = 7i64.to_be_bytes();

fn longs(builder: &StreamsBuilder) -> KStream<i64, i64> {
    builder.stream("in", Consumed::with(I64, I64))
}

#[test]
fn a_stateless_chain_allocates_nothing() {
    let wire = |builder: &StreamsBuilder| {
        let stream = longs(builder).filter(|_, v| *v != 0).map_values(|v| v + 1).map(|k, v| (v, k));
        stream.filter(|k, _| *k != 0).map_values(|v| v * 2).to("out", Produced::with(I64, I64));
    };
    assert_eq!(per_record(wire, &LONG), 0.0);
}

#[test]
fn a_chain_of_text_allocates_only_what_the_serde_decodes() {
    let wire = |builder: &StreamsBuilder| {
        let stream = builder.stream("in", Consumed::with(Utf8, Utf8)).filter(|_, v| !v.is_empty());
        stream
            .map_values(|mut v| {
                v.make_ascii_uppercase();
                v
            })
            .to("out", Produced::with(Utf8, Utf8));
    };
    assert_eq!(per_record(wire, b"some text"), 2.0, "a key and a value");
}

#[test]
fn a_fan_out_and_a_diamond_allocate_nothing() {
    let wire = |builder: &StreamsBuilder| {
        let stream = longs(builder);
        let (left, right) = (stream.clone().filter(|_, _| true), stream.clone().map_values(|v| v + 1));
        stream.to("out-1", Produced::with(I64, I64));
        left.merge(right).to("out-2", Produced::with(I64, I64));
    };
    assert_eq!(per_record(wire, &LONG), 0.0);
}

#[test]
fn a_count_of_known_keys_allocates_nothing() {
    let wire = |builder: &StreamsBuilder| {
        let counts = longs(builder).group_by_key(Grouped::with(I64, I64)).count(Materialized::default());
        counts.to_stream().to("out", Produced::with(I64, I64));
    };
    assert_eq!(per_record(wire, &LONG), 0.0);
}

#[test]
fn a_join_allocates_nothing() {
    let wire = |builder: &StreamsBuilder| {
        let table = builder.table("table", Consumed::with(I64, I64), Materialized::default());
        longs(builder).join(&table, |l, r| l + r, Joined::with(I64, I64)).to("out", Produced::with(I64, I64));
    };
    assert_eq!(per_record(wire, &LONG), 0.0);
}
