//! Windows of so many records.

use super::*;

#[derive(Debug, Clone, Copy)]
struct Setup {
    size: usize,
    advance: usize,
    emit: EmitStrategy,
    in_memory: bool,
}

fn setups() -> impl Strategy<Value = Setup> {
    let window = (1..8_usize).prop_flat_map(|size| (Just(size), 1..=size));
    let emit = prop_oneof![Just(EmitStrategy::OnWindowUpdate), Just(EmitStrategy::OnWindowClose)];
    (window, emit, any::<bool>()).prop_map(|((size, advance), emit, in_memory)| Setup {
        size,
        advance,
        emit,
        in_memory,
    })
}

impl Setup {
    /// A row says which records it has, in their order.
    fn build(self) -> StreamsBuilder {
        let builder = StreamsBuilder::new();
        let rows = Materialized::named("rows");
        let rows = if self.in_memory { rows.in_memory() } else { rows };
        let append = |row: Option<String>, value: Option<String>| row.zip(value).map(|(row, value)| row + "," + &value);
        builder
            .stream("in", Consumed::with(Nullable(Utf8), Nullable(Utf8)))
            .group_by_key(Grouped::with(Nullable(Utf8), Nullable(Utf8)))
            .windowed_by(CountWindows::hopping(self.size as u64, self.advance as u64))
            .emit_strategy(self.emit)
            .reduce(append, rows)
            .to_stream()
            .to("out", Produced::with(CountedSerde::new(Nullable(Utf8), self.size as u64), Nullable(Utf8)));
        builder
    }

    fn model(self, inputs: &[Input]) -> Vec<Vec<Line>> {
        let Setup { size, advance, emit, .. } = self;
        let mut of_key: BTreeMap<&str, Vec<(usize, i64)>> = BTreeMap::new();
        let mut record = |(number, input): (usize, &Input)| {
            let (Some(key), Some(_)) = (input.key, input.value) else { return Vec::new() };
            let records = of_key.entry(key).or_default();
            records.push((number, input.at));
            let windows = (0..records.len()).step_by(advance).map(|first| (first, &records[first..]));
            let waits = emit == EmitStrategy::OnWindowClose;
            let is_shown = |length: usize| length == size || (length < size && !waits);
            let line = |(first, window): (usize, &[(usize, i64)])| {
                let numbers: Vec<_> = window.iter().map(|(number, _)| number.to_string()).collect();
                let at = window.iter().map(|(_, at)| *at).max().unwrap();
                (format!("{key} {first}"), Some(numbers.join(",")), at)
            };
            windows.filter(|(_, window)| is_shown(window.len())).map(line).collect()
        };
        inputs.iter().enumerate().map(&mut record).collect()
    }
}

fn show(record: &TestRecord) -> Line {
    let (key, first) = record.key.as_deref().unwrap().split_last_chunk().unwrap();
    let key = format!("{} {}", text_of(key), i64::from_be_bytes(*first));
    (key, record.value.as_deref().map(text_of), record.timestamp)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn windows_of_so_many_records_hold_them_whatever_their_times_are(
        setup in setups(), inputs in inputs(1, 60), run in runs(),
    ) {
        let property = Property {
            build: &|| setup.build(),
            topics: &["in"],
            inputs: &inputs,
            value: &numbered,
            show: &show,
            output: Output::Records,
        };
        let plain = property.plain();
        prop_assert_eq!(plain.by_record(), setup.model(&inputs));
        property.ends_the_same(run, &plain)?;
    }
}
