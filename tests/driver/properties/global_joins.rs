//! Joins of a stream with a global table.

use super::*;

const STREAM: usize = 0;

/// The row of the stream's record names one of the table, or none.
fn naming(number: usize, value: u8) -> Vec<u8> {
    let name = KEYS[usize::from(value) % KEYS.len()].unwrap_or_default();
    format!("{name}|{number}").into_bytes()
}

fn name_of(value: &str) -> Option<String> {
    value.split('|').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

type Text = Option<String>;

fn both(left: &str, right: Option<&str>) -> String {
    format!("{left}+{}", right.unwrap_or("-"))
}

fn join(is_left_join: bool) -> StreamsBuilder {
    let builder = StreamsBuilder::new();
    let rows = Materialized::named("rows");
    let table = builder.global_table("table", Consumed::with(Utf8, Utf8), rows);
    let stream = builder.stream("stream", Consumed::with(Nullable(Utf8), Nullable(Utf8)));
    let by = Joined::with(Nullable(Utf8), Nullable(Utf8));
    let named = |_: &Text, value: &Text| name_of(value.as_deref()?);
    let shown = |value: Text| value.unwrap_or_default();
    let stream = match is_left_join {
        true => stream.left_join_global(&table, named, move |l, r| both(&shown(l), r.as_deref()), by),
        false => stream.join_global(&table, named, move |l, r| both(&shown(l), Some(&r)), by),
    };
    stream.to("out", Produced::with(Nullable(Utf8), Utf8));
    builder
}

fn model(is_left_join: bool, inputs: &[Input]) -> Vec<Vec<Line>> {
    let mut rows: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut record = |(number, input): (usize, &Input)| {
        let value = input.value.map(|random| text_of(&naming(number, random)));
        if input.topic != STREAM {
            rows.extend(input.key.map(|key| (key.to_owned(), value)));
            return None;
        }
        let value = value?;
        let name = name_of(&value);
        if name.is_none() && !(is_left_join && input.key.is_none()) {
            return None; // Java's rule, which looks at the record's own key
        }
        let row = name.and_then(|name| rows.get(&name)).and_then(Option::as_deref);
        let key = input.key.unwrap_or("-").to_owned();
        (is_left_join || row.is_some()).then(|| (key, Some(both(&value, row)), input.at))
    };
    inputs.iter().enumerate().map(|input| record(input).into_iter().collect()).collect()
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_join_with_a_global_table_reads_the_row_as_it_is(
        is_left_join in any::<bool>(), mut inputs in inputs(2, 60), is_table_first in any::<bool>(), run in runs(),
    ) {
        inputs.retain(|input| input.topic == STREAM || input.key.is_some());
        if is_table_first {
            inputs.sort_by_key(|input| input.topic == STREAM);
        }
        let property = Property {
            build: &|| join(is_left_join),
            topics: &["stream", "table"],
            inputs: &inputs,
            value: &naming,
            show: &text_line,
            output: Output::Records,
        };
        let plain = property.plain();
        prop_assert_eq!(plain.by_record(), model(is_left_join, &inputs));
        // No transaction keeps a global table back: a record that is read again meets its rows as they are by then.
        if is_table_first {
            property.ends_the_same(run, &plain)?;
        }
    }
}
