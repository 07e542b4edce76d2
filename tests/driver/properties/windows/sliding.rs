//! Sliding windows: those that begin or end with a record.

use super::*;

fn sliding() -> impl Strategy<Value = Windows> {
    (1..20_i64).prop_map(|difference| Windows::Sliding { difference })
}

/// Windows by start and key, with the records in each.
type Held = BTreeMap<(i64, &'static str), Vec<Fed>>;

/// Where no window misses a record that others have, a key's windows follow from its records alone: after the first so
/// many, each begins so much before one of them, or right behind one, and holds every record in its time.
fn all_windows(difference: i64, records: &[Fed]) -> Held {
    let mut windows = Held::new();
    for Fed { key, at, .. } in records {
        for start in [(at - difference).max(0), at + 1] {
            let is_inside = |fed: &&Fed| fed.key == *key && (start..=start + difference).contains(&fed.at);
            let inside: Vec<_> = records.iter().filter(is_inside).copied().collect();
            if !inside.is_empty() {
                windows.insert((start, key), inside);
            }
        }
    }
    windows
}

/// The records that are in time for all their windows; others are so late that they have none.
fn all_or_none(setup: Setup, difference: i64, inputs: &[Input]) -> (Vec<Input>, Vec<Fed>) {
    let (mut kept, mut in_time, mut time) = (Vec::new(), Vec::new(), -1);
    for input in inputs {
        let aggregated = fed(&[*input]).find(|fed| fed.value.is_some());
        if let Some(Fed { at, .. }) = aggregated {
            let close_time = at.max(time) - setup.grace;
            if (at..at + difference).contains(&(close_time - 1)) {
                continue;
            }
            time = at.max(time);
        }
        kept.push(*input);
        in_time.push(aggregated.is_some_and(|fed| fed.at >= time - setup.grace));
    }
    let in_time = fed(&kept).filter(|fed| in_time[fed.number]).collect();
    (kept, in_time)
}

/// What each record updates, and what has closed before that. A window that has closed stays as it was, and others that
/// begin with its records do so, too.
struct SlidingModel {
    updates: Vec<Vec<Update>>,
    closed: Vec<Vec<Update>>,
    rows: Vec<Row>,
}

impl SlidingModel {
    fn of(setup: Setup, inputs: &[Input]) -> SlidingModel {
        let Windows::Sliding { difference } = setup.windows else { panic!("sliding windows") };
        let (mut updates, mut closed) = (vec![Vec::new(); inputs.len()], vec![Vec::new(); inputs.len()]);
        let mut windows = Held::new();
        let (mut times, mut last_start, mut closed_before) = ([-1; 2], -1, -1);
        let shown = |(start, key): (i64, &'static str), records: &[Fed]| {
            let (row, at) = setup.fold.of_all(records).unwrap();
            (key, Window::new(start, start + difference), Some(row), at)
        };
        for record in fed(inputs).filter(|fed| fed.value.is_some()) {
            let Fed { number, topic, key, at, .. } = record;
            times[topic] = at.max(times[topic]);
            let close_time = times[topic] - setup.grace;
            let closing =
                windows.iter().filter(|((start, _), _)| (closed_before..close_time).contains(&(start + difference)));
            closed[number].extend(closing.map(|(place, records)| shown(*place, records)));
            closed_before = closed_before.max(close_time);
            // The store has a time of its own, that of the last window.
            let is_kept = |start: i64, last_start: i64| start > last_start - setup.retention();
            let of_key = windows.iter().filter(|((start, k), _)| *k == key && is_kept(*start, last_start));
            let of_key = of_key.map(|((start, _), records)| (*start, records.clone())).collect();
            for (start, records) in grown(difference, record, close_time, &of_key) {
                updates[number].push(shown((start, key), &records));
                last_start = last_start.max(start);
                if is_kept(start, last_start) {
                    windows.insert((start, key), records);
                }
            }
        }
        let rows = windows.values().filter_map(|records| setup.fold.of_all(records)).collect();
        SlidingModel { updates, closed, rows }
    }
}

/// The windows of a key that a record is added to or makes, of those that there are.
fn grown(difference: i64, record: Fed, close_time: i64, held: &BTreeMap<i64, Vec<Fed>>) -> BTreeMap<i64, Vec<Fed>> {
    let at = record.at;
    let last = |records: &[Fed]| records.iter().map(|fed| fed.at).max().unwrap();
    let with_it = |records: &[Fed]| [records, &[record]].concat();
    let mut grown = BTreeMap::new();
    if at + difference < close_time {
        return grown;
    }
    // Windows around it grow, unless they have closed.
    let around: Vec<_> = held.iter().filter(|(start, _)| (at - difference..=at).contains(*start)).collect();
    grown.extend(around.iter().map(|(start, records)| (**start, with_it(records))));
    // The first ones share the window from 0, which has no time before it.
    let left = (at - difference).max(0);
    let own = held.get(&left).map(|records| last(records));
    let has_twin = at >= difference && own == Some(at);
    if !has_twin {
        let before = held.range(at - 2 * difference..left).next_back().map(|(_, records)| records);
        let previous = before.map(|records| last(records)).or(own.filter(|own| *own < at));
        let begins_with = before.filter(|records| last(records) >= left).map_or(&[][..], |records| records);
        grown.entry(left).or_insert_with(|| with_it(begins_with));
        // The record before it may have been the last one, and gets its right window now.
        if let Some(start) = previous.map(|previous| previous + 1).filter(|start| start + difference >= at) {
            grown.entry(start).or_insert_with(|| with_it(&[]));
        }
    }
    grown.retain(|start, _| start + difference >= close_time);
    // Its own right window has what is behind it, if there is anything.
    let later = around.last().filter(|(_, records)| last(records) > at && !has_twin);
    if let Some((_, records)) = later.filter(|_| !held.contains_key(&(at + 1))) {
        grown.insert(at + 1, records.to_vec());
    }
    grown
}

/// Of one record, Java's order of windows depends on which way it has walked along them; and one that is the right window
/// of the record before and the left one of this is made twice.
fn in_order(mut lines: Vec<Vec<Line>>) -> Vec<Vec<Line>> {
    for lines in &mut lines {
        lines.sort();
        lines.dedup();
    }
    lines
}

fn check_updates(setup: Setup, inputs: &[Input], run: Run) -> TestCaseResult {
    let model = SlidingModel::of(setup, inputs);
    setup.check(inputs, run, |plain| {
        prop_assert_eq!(in_order(plain.by_record()), in_order(lines(&model.updates)));
        setup.check_rows(plain, &model.rows)
    })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_record_begins_and_ends_a_sliding_window(
        setup in setups(sliding(), prop_oneof![0..30_i64, Just(100)], UPDATE), inputs in inputs(1, 60), run in runs(),
    ) {
        let Windows::Sliding { difference } = setup.windows else { return Ok(()) };
        let setup = Setup { keeps_long: true, ..setup };
        let (inputs, records) = all_or_none(setup, difference, &inputs);
        let mut expected = vec![Vec::new(); inputs.len()];
        let mut rows = Vec::new();
        for (count, Fed { number, key, at, .. }) in records.iter().enumerate() {
            let before = all_windows(difference, &records[..count]);
            let windows = all_windows(difference, &records[..=count]);
            rows = windows.values().filter_map(|records| setup.fold.of_all(records)).collect();
            for ((start, key), records) in windows.iter().filter(|((_, k), _)| k == key) {
                if (*start..=start + difference).contains(at) || !before.contains_key(&(*start, *key)) {
                    let (row, at) = setup.fold.of_all(records).unwrap();
                    expected[*number].push((*key, Window::new(*start, start + difference), Some(row), at));
                }
            }
        }
        setup.check(&inputs, run, |plain| {
            prop_assert_eq!(in_order(plain.by_record()), in_order(lines(&expected)));
            setup.check_rows(plain, &rows)
        })?;
    }

    #[test]
    fn late_records_miss_sliding_windows_that_have_closed(
        setup in setups(sliding(), 0..30_i64, UPDATE), inputs in inputs(1, 60), run in runs(),
    ) {
        check_updates(setup, &inputs, run)?;
    }

    #[test]
    fn a_sliding_window_is_emitted_when_it_closes(
        setup in setups(sliding(), 0..30_i64, CLOSE), inputs in inputs(1, 200), run in runs(),
    ) {
        let inputs = ended(inputs);
        let model = SlidingModel::of(setup, &inputs);
        setup.check_lines(&inputs, run, &model.closed, &model.rows)?;
    }

    #[test]
    fn streams_share_sliding_windows_and_each_has_its_own_time(
        setup in cogroups(sliding(), 0..30_i64), inputs in inputs(2, 60), run in runs(),
    ) {
        check_updates(setup, &inputs, run)?;
    }
}
