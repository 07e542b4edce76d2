//! Changes through joins of tables, bytes to bytes: `cargo bench --bench table_joins`.

#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::expect_used,
    missing_docs,
    reason = "a bench measures time, and has to run to its end"
)]

mod measure;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use kstreams::*;

const RECORDS: usize = 2_000;
const KEYS: usize = 100;
/// Left rows that name the same right row.
const FAN_OUT: usize = 10;

type Row = (Vec<u8>, Vec<u8>);

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn joins(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tables");
    let both = |l: String, r: String| l + &r;
    on_key(&mut group, "inner join", |l, r| l.join(r, both));
    on_key(&mut group, "left join", |l, r| l.left_join(r, |l, r| l + r.as_deref().unwrap_or_default()));
    on_key(&mut group, "outer join", |l, r| l.outer_join(r, |l, r| l.or(r).unwrap_or_default()));
    on_key(&mut group, "inner join with a store", |l, r| {
        l.join_materialized(r, both, Materialized::named("joined").with_value_serde(Utf8))
    });
    on_key(&mut group, "inner join of versioned tables", |l, r| l.join(r, both));
    on_foreign_key(&mut group).expect("runs");
}

criterion_group!(benches, joins);
criterion_main!(benches);

fn text(number: usize) -> Row {
    (format!("key-{:04}", number % KEYS).into(), format!("a row of text {number}").into())
}

/// Rows of a topic, the same ones in each round; once in any case, for what is measured behind it.
fn measure(group: &mut Group<'_>, name: &str, task: &mut SingleTask, topic: &str, rows: impl Fn(usize) -> Row) {
    let input = task.input(topic).expect("is read");
    let rows: Vec<Row> = (0..RECORDS).map(rows).collect();
    let round = |task: &mut SingleTask| {
        task.run(input, rows.iter().map(|(key, row)| (key.as_slice(), row.as_slice()))).map(|_| ())
    };
    round(task).expect("a round");
    measure::rounds(group, name, RECORDS, task, round);
}

fn tables(builder: &StreamsBuilder, is_versioned: bool) -> [KTable<String, String>; 2] {
    ["left", "right"].map(|topic| {
        let rows = Materialized::named(topic);
        let history = std::time::Duration::from_secs(60);
        let rows = if is_versioned { rows.as_versioned(history) } else { rows };
        builder.table(topic, Consumed::with(Utf8, Utf8), rows)
    })
}

fn on_key(
    group: &mut Group<'_>,
    name: &str,
    join: impl FnOnce(KTable<String, String>, &KTable<String, String>) -> KTable<String, String>,
) {
    let builder = StreamsBuilder::new();
    let [left, right] = tables(&builder, name.contains("versioned"));
    join(left, &right).to_stream().to("out", Produced::with(Utf8, Utf8));
    let mut task = SingleTask::new(&builder.build().expect("builds"), 0).expect("a task");
    let input = task.input("right").unwrap_or_default();
    let rows: Vec<Row> = (0..KEYS).map(text).collect();
    task.run(input, rows.iter().map(|(key, row)| (key.as_slice(), row.as_slice()))).expect("runs");
    measure(group, name, &mut task, "left", text);
}

fn on_foreign_key(group: &mut Group<'_>) -> Result<()> {
    let builder = StreamsBuilder::new();
    let [left, right] = tables(&builder, false);
    left.left_join_foreign_key(
        &right,
        |_, row: &String| row.split('|').next().map(str::to_owned),
        |l, r| l + r.as_deref().unwrap_or_default(),
        TableJoined::named("j"),
    )
    .to_stream()
    .to("out", Produced::with(Utf8, Utf8));
    let topology = builder.build()?;
    let foreign_key = |number: usize| format!("foreign-{:02}", number % KEYS / FAN_OUT);
    let left_row =
        |number: usize| -> Row { (text(number).0, format!("{}|{}", foreign_key(number), number % KEYS).into()) };

    let mut left = SingleTask::new(&topology, 0)?;
    measure(group, "foreign-key join: a left row asks", &mut left, "left", left_row);
    let answer = |number: usize| -> Result<Row> {
        let (key, row) = left_row(number);
        Ok((key, Wire::subscription_response(Some(&Wire::murmur3_128(&row)), Some(b"a right row"))?))
    };
    let answers: Vec<Row> = (0..KEYS).map(answer).collect::<Result<_>>()?;
    measure(group, "foreign-key join: an answer is joined", &mut left, "j-subscription-response-topic", |number| {
        answers[number % KEYS].clone()
    });

    let mut right = SingleTask::new(&topology, 1)?;
    let request = |number: usize| -> Result<Row> {
        let (primary_key, row) = left_row(number);
        let hash = Some(Wire::murmur3_128(&row).to_vec());
        let subscription = WireSubscription { hash, instruction: 2, primary_key, primary_partition: Some(0) };
        Ok((foreign_key(number).into(), Wire::subscription(&subscription)?))
    };
    let requests: Vec<Row> = (0..KEYS).map(request).collect::<Result<_>>()?;
    measure(
        group,
        "foreign-key join: a request is answered",
        &mut right,
        "j-subscription-registration-topic",
        |number| requests[number % KEYS].clone(),
    );
    let name = format!("foreign-key join: a right row, {FAN_OUT} left ones want it");
    measure(group, &name, &mut right, "right", |number| (foreign_key(number).into(), text(number).1));
    Ok(())
}
