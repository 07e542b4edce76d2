//! Tables whose changes wait.

use super::windows::{GridModel, Setup, grid, line, setups};
use super::*;

/// Updates wait until they are so old, or until there are more than so many.
#[derive(Debug, Clone, Copy)]
struct Limits {
    wait: i64,
    records: usize,
}

fn limits() -> impl Strategy<Value = Limits> {
    (0..40_i64, 1..5_usize).prop_map(|(wait, records)| Limits { wait, records })
}

/// What comes through of changes that have a time and a key: a later one of a key takes the place of the one that waits.
fn let_through(changes: Vec<Vec<(i64, Vec<u8>, Line)>>, limits: Limits) -> Vec<Vec<Line>> {
    let mut places: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    let mut waiting: BTreeMap<(i64, Vec<u8>), Line> = BTreeMap::new();
    let mut time = -1;
    let through = |(due, key, change): (i64, Vec<u8>, Line)| {
        time = time.max(change.2);
        let place = *places.entry(key.clone()).or_insert(due);
        waiting.insert((place, key), change);
        let mut lines = Vec::new();
        while let Some(first) = waiting.first_entry() {
            if first.key().0 > time - limits.wait && places.len() <= limits.records {
                break;
            }
            let ((_, key), line) = first.remove_entry();
            places.remove(&key);
            lines.push(line);
        }
        lines
    };
    let mut through = through;
    changes.into_iter().map(|changes| changes.into_iter().flat_map(&mut through).collect()).collect()
}

fn waiting(limits: Limits) -> StreamsBuilder {
    let builder = StreamsBuilder::new();
    let buffer = BufferConfig::max_records(limits.records).emit_early_when_full();
    builder
        .table("in", Consumed::with(Nullable(Utf8), Utf8), Materialized::named("rows"))
        .suppress(Suppressed::until_time_limit(ms(limits.wait), buffer))
        .to_stream()
        .to("out", Produced::with(Nullable(Utf8), Utf8));
    builder
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_suppressed_window_comes_once_with_all_its_records(
        setup in setups(grid(), 0..10_i64, EmitStrategy::OnWindowUpdate), inputs in inputs(1, 200), run in runs(),
    ) {
        let setup = Setup { is_suppressed: true, ..setup };
        let run = Run { cache_bytes: 0, ..run };
        setup.check(&inputs, run, |plain| {
            let updates = GridModel::of(setup, &inputs).updates.into_iter().map(|updates| {
                let change = |update: (&'static str, Window, Option<i64>, i64)| {
                    let key = [update.0.as_bytes(), &update.1.start.to_be_bytes()].concat();
                    (update.1.end, key, line(update))
                };
                updates.into_iter().map(change).collect()
            });
            let mut expected = let_through(updates.collect(), Limits { wait: setup.grace, records: usize::MAX });
            // A window without a row is no result.
            expected.iter_mut().for_each(|lines| lines.retain(|(_, row, _)| row.is_some()));
            prop_assert_eq!(plain.by_record(), expected);
            Ok(())
        })?;
    }

    #[test]
    fn a_change_waits_until_it_is_old_or_the_buffer_is_full(
        limits in limits(), inputs in inputs(1, 200), run in runs(),
    ) {
        let property = Property {
            build: &|| waiting(limits),
            topics: &["in"],
            inputs: &inputs,
            value: &numbered,
            show: &text_line,
            output: Output::Records,
        };
        let plain = property.plain();
        let changes = inputs.iter().enumerate().map(|(number, input)| {
            let row = input.value.map(|_| number.to_string());
            let change = |key: &str| (input.at, key.as_bytes().to_vec(), (key.to_owned(), row, input.at));
            input.key.map(change).into_iter().collect()
        });
        prop_assert_eq!(plain.by_record(), let_through(changes.collect(), limits));
        property.ends_the_same(Run { cache_bytes: 0, ..run }, &plain)?;
    }
}
