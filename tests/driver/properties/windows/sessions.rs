//! Sessions: records of a key that are near each other.

use super::*;

fn sessions() -> impl Strategy<Value = Windows> {
    (0..10_i64).prop_map(|gap| Windows::Session { gap })
}

/// What each record updates, and what has closed before that.
struct SessionModel {
    updates: Vec<Vec<Update>>,
    closed: Vec<Vec<Update>>,
    rows: Vec<Row>,
}

impl SessionModel {
    fn of(setup: Setup, inputs: &[Input]) -> SessionModel {
        let Windows::Session { gap } = setup.windows else { panic!("sessions") };
        let mut sessions: Vec<(&'static str, Window, i64)> = Vec::new();
        // Sessions that have not been emitted, some of which no record can reach any more: by end, start and key, or in
        // memory by end, key and start.
        let place = |key, Window { start, end }| (end, if setup.in_memory { 0 } else { start }, key, start);
        let mut open: BTreeMap<(i64, i64, &'static str, i64), i64> = BTreeMap::new();
        let (mut updates, mut closed) = (vec![Vec::new(); inputs.len()], vec![Vec::new(); inputs.len()]);
        let (mut times, mut last_end) = ([-1; 2], -1);
        for fed in fed(inputs) {
            let Fed { number, topic, key, at, .. } = fed;
            times[topic] = at.max(times[topic]);
            let close_time = times[topic] - setup.grace - gap;
            while let Some(first) = open.first_entry().filter(|first| first.key().0 < close_time) {
                let ((end, _, key, start), row) = first.remove_entry();
                closed[number].push((key, Window { start, end }, Some(row), end));
            }
            // The store has a time of its own, that of the last session.
            sessions.retain(|(_, window, _)| window.end > last_end - setup.retention());
            let near = |(k, window, _): &(&'static str, Window, i64)| {
                *k == key && window.end >= at - gap && window.start <= at + gap
            };
            let mut merged: Vec<_> = sessions.iter().filter(|session| near(session)).copied().collect();
            merged.sort_by_key(|(_, window, _)| window.end);
            let start = merged.iter().fold(at, |start, (_, window, _)| start.min(window.start));
            let end = merged.iter().fold(at, |end, (_, window, _)| end.max(window.end));
            if end < close_time {
                continue;
            }
            sessions.retain(|session| !near(session));
            last_end = last_end.max(end);
            let window = Window { start, end };
            for (key, window, _) in &merged {
                open.remove(&place(*key, *window));
                if start != end {
                    updates[number].push((*key, *window, None, window.end));
                }
            }
            let rows = merged.iter().map(|(.., row)| *row);
            let row = setup.fold.add(rows.reduce(|one, other| setup.fold.merge(one, other)), fed);
            sessions.extend(row.map(|row| (key, window, row)));
            // As in Java, one in memory takes nothing that has expired; one on disk looks at a whole segment.
            if !setup.in_memory || end > last_end - setup.retention() {
                open.remove(&place(key, window));
                open.extend(row.map(|row| (place(key, window), row)));
            }
            updates[number].push((key, window, row, end));
        }
        let rows = sessions.into_iter().map(|(_, window, row)| (row, window.end)).collect();
        SessionModel { updates, closed, rows }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn sessions_grow_and_merge_and_late_records_are_left_out(
        setup in setups(sessions(), prop_oneof![0..60_i64, Just(200)], UPDATE), inputs in inputs(1, 120), run in runs(),
    ) {
        let model = SessionModel::of(setup, &inputs);
        setup.check_lines(&inputs, run, &model.updates, &model.rows)?;
    }

    /// A record that is not late itself may still join a session that has been emitted: the longer one comes, too.
    #[test]
    fn a_session_is_emitted_when_it_closes(
        setup in setups(sessions(), 0..30_i64, CLOSE), inputs in inputs(1, 200), run in runs(),
    ) {
        let inputs = ended(inputs);
        let model = SessionModel::of(setup, &inputs);
        setup.check_lines(&inputs, run, &model.closed, &model.rows)?;
    }

    #[test]
    fn streams_share_sessions_and_each_has_its_own_time(
        setup in cogroups(sessions(), prop_oneof![0..60_i64, Just(200)]), inputs in inputs(2, 120), run in runs(),
    ) {
        let model = SessionModel::of(setup, &inputs);
        setup.check_lines(&inputs, run, &model.updates, &model.rows)?;
    }
}
