//! Windows that begin and end whatever the records are: those of a grid, and the one without an end.

use super::*;

pub(in super::super) fn grid() -> impl Strategy<Value = Windows> {
    let window = (1..20_i64).prop_flat_map(|size| (Just(size), prop_oneof![Just(size), 1..=size]));
    window.prop_map(|(size, advance)| Windows::Time { size, advance })
}

fn unlimited() -> impl Strategy<Value = Windows> {
    prop_oneof![Just(0), 0..60_i64].prop_map(|start| Windows::Unlimited { start })
}

/// The windows that a time is in.
fn windows_at(windows: Windows, at: i64) -> Vec<Window> {
    match windows {
        Windows::Time { size, advance } => {
            let starts = (0..=at).filter(|start| start % advance == 0 && at < start + size);
            starts.map(|start| Window::new(start, start + size)).collect()
        }
        Windows::Unlimited { start } if at >= start => vec![Window { start, end: i64::MAX }],
        Windows::Unlimited { .. } => Vec::new(),
        Windows::Sliding { .. } | Windows::Session { .. } => panic!("{windows:?} depend on the records"),
    }
}

/// What each record updates, and what has closed before that.
pub(in super::super) struct GridModel {
    pub(in super::super) updates: Vec<Vec<Update>>,
    closed: Vec<Vec<Update>>,
    rows: Vec<Row>,
}

impl GridModel {
    pub(in super::super) fn of(setup: Setup, inputs: &[Input]) -> GridModel {
        // By start and key, in the order in which windows close.
        let mut rows: BTreeMap<(i64, &'static str), (Window, Row)> = BTreeMap::new();
        let (mut updates, mut closed) = (vec![Vec::new(); inputs.len()], vec![Vec::new(); inputs.len()]);
        let (mut times, mut last_start, mut closed_before) = ([-1; 2], -1, -1);
        for fed in fed(inputs) {
            let Fed { number, topic, key, at, .. } = fed;
            times[topic] = at.max(times[topic]);
            let close_time = times[topic] - setup.grace;
            for (&(_, key), &(window, (row, at))) in &rows {
                if window.end > closed_before && window.end <= close_time {
                    closed[number].push((key, window, Some(row), at));
                }
            }
            closed_before = closed_before.max(close_time);
            for window in windows_at(setup.windows, at).into_iter().filter(|window| window.end > close_time) {
                last_start = last_start.max(window.start);
                let is_kept = |start| start > last_start.saturating_sub(setup.retention());
                let old = rows.remove(&(window.start, key)).filter(|(window, _)| is_kept(window.start));
                let at = old.map_or(at, |(_, (_, last))| at.max(last));
                let row = setup.fold.add(old.map(|(_, (row, _))| row), fed);
                if let Some(row) = row.filter(|_| is_kept(window.start)) {
                    rows.insert((window.start, key), (window, (row, at)));
                }
                updates[number].push((key, window, row, at));
            }
        }
        let rows = rows.into_values().map(|(_, row)| row).collect();
        GridModel { updates, closed, rows }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_record_is_in_every_window_of_the_grid_that_is_open(
        setup in setups(grid(), 0..30_i64, UPDATE), inputs in inputs(1, 80), run in runs(),
    ) {
        let model = GridModel::of(setup, &inputs);
        setup.check_lines(&inputs, run, &model.updates, &model.rows)?;
    }

    #[test]
    fn windows_that_close_are_emitted_once_and_never_before_their_time(
        setup in setups(grid(), 0..10_i64, CLOSE), inputs in inputs(1, 200), run in runs(),
    ) {
        let model = GridModel::of(setup, &inputs);
        setup.check_lines(&inputs, run, &model.closed, &model.rows)?;
    }

    #[test]
    fn the_window_without_an_end_takes_every_record_from_its_start(
        setup in setups(unlimited(), Just(0), UPDATE), inputs in inputs(1, 80), run in runs(),
    ) {
        let model = GridModel::of(setup, &inputs);
        setup.check_lines(&inputs, run, &model.updates, &model.rows)?;
    }

    #[test]
    fn streams_share_the_windows_of_a_grid_and_each_has_its_own_time(
        setup in cogroups(prop_oneof![grid(), unlimited()], 0..30_i64), inputs in inputs(2, 80), run in runs(),
    ) {
        let model = GridModel::of(setup, &inputs);
        setup.check_lines(&inputs, run, &model.updates, &model.rows)?;
    }
}
