//! Mapping the rows of a table with functions that keep state.

use std::time::Duration;

use crate::*;

/// Counts the changes of each row.
struct Counting(KeyValueStore<String, i64>);

impl ValueTransformerWithKey<String, String> for Counting {
    type ValueOut = String;

    fn transform(
        &mut self,
        key: &String,
        row: Option<String>,
        ctx: &mut TransformContext<'_>,
    ) -> Result<Option<String>> {
        let count = self.0.get(ctx, key)?.unwrap_or(0) + 1;
        self.0.put(ctx, key, &count)?;
        Ok(row.map(|row| format!("{row}#{count}@{}", ctx.timestamp())))
    }
}

#[test]
fn a_transformer_has_stores_and_is_called_for_deleted_rows() {
    let builder = StreamsBuilder::new();
    let counts = Stores::key_value("counts", Utf8, I64);
    let processed = Processed::default().with_store(&counts);
    builder
        .table("in", text(), Materialized::default())
        .transform_values(move |init| Ok(Counting(init.store(&counts)?)), processed)
        .to_stream()
        .to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("in", "a", "x", 5), ["out a x#1@5 @5"]);
    assert_eq!(driver.delete("in", "a", 6), ["out a - @6"]);
    assert_eq!(driver.pipe("in", "a", "y", 7), ["out a y#3@7 @7"]);
}

#[test]
fn a_reader_of_a_transformed_table_has_a_transformer_of_its_own() {
    struct Shown;
    impl ValueTransformerWithKey<String, String> for Shown {
        type ValueOut = String;

        fn transform(
            &mut self,
            _: &String,
            row: Option<String>,
            ctx: &mut TransformContext<'_>,
        ) -> Result<Option<String>> {
            let is_known = ctx.record_metadata().is_some();
            Ok(Some(format!("{row:?}@{} {is_known}", ctx.timestamp())))
        }
    }
    let builder = StreamsBuilder::new();
    let table = builder.table("in", text(), Materialized::default());
    let shown = table.transform_values(|_| Ok(Shown), Processed::default());
    let joined = Joined::with(Utf8, Utf8);
    builder.stream("stream", text()).join(&shown, |s, row| format!("{s}:{row}"), joined).to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.pipe("in", "a", "x", 5);
    assert_eq!(driver.pipe("stream", "a", "s", 9), [r#"out a s:Some("x")@5 false @9"#]);
    assert_eq!(driver.pipe("stream", "b", "s", 9), ["out b s:None@-1 false @9"]);
}

#[test]
fn a_stored_result_knows_what_its_rows_were() {
    struct Upper;
    impl ValueTransformerWithKey<String, String> for Upper {
        type ValueOut = String;

        fn transform(
            &mut self,
            _: &String,
            row: Option<String>,
            _: &mut TransformContext<'_>,
        ) -> Result<Option<String>> {
            Ok(row.map(|row| row.to_uppercase()))
        }
    }
    for stored in [false, true] {
        let builder = StreamsBuilder::new();
        let table = builder.table("in", text(), Materialized::default());
        let upper = match stored {
            false => table.transform_values(|_| Ok(Upper), Processed::default()),
            true => table.transform_values_materialized(
                |_| Ok(Upper),
                Processed::default(),
                Materialized::named("upper").with_value_serde(Utf8),
            ),
        };
        let groups = upper.group_by(|key, row| (row.clone(), key.clone()), grouped());
        groups.count(Materialized::named("counts")).to_stream().to("out", Produced::with(Utf8, I64));
        let mut driver = Driver::new(builder);
        assert_eq!(driver.pipe("in", "a", "x", 1), ["out X 1 @1"]);
        assert_eq!(driver.pipe("in", "a", "y", 2), ["out X 0 @2", "out Y 1 @2"], "stored: {stored}");
    }
}

#[test]
fn a_transformer_is_called_when_its_schedule_is_due() {
    struct Ticking {
        ticks: KeyValueStore<String, i64>,
    }
    impl ValueTransformerWithKey<String, String> for Ticking {
        type ValueOut = String;

        fn transform(
            &mut self,
            _: &String,
            row: Option<String>,
            _: &mut TransformContext<'_>,
        ) -> Result<Option<String>> {
            Ok(row)
        }

        fn punctuate(&mut self, _: Punctuation, timestamp: i64, ctx: &mut TransformContext<'_>) -> Result<()> {
            self.ticks.put(ctx, &"last".to_owned(), &timestamp)
        }
    }
    let builder = StreamsBuilder::new();
    let ticks = Stores::key_value("ticks", Utf8, I64);
    builder.add_state_store(&ticks);
    let make = move |init: &mut ProcessorInit<'_>| {
        init.schedule(Duration::from_millis(10), PunctuationType::WallClockTime);
        Ok(Ticking { ticks: init.store(&ticks)? })
    };
    let table = builder.table("in", text(), Materialized::default());
    table.transform_values(make, Processed::stores(["ticks"])).to_stream().to("out", to_text());
    let mut driver = Driver::new(builder);
    driver.inner.advance_wall_clock(Duration::from_millis(25)).unwrap();
    let mut ticks = driver.inner.key_value_store("ticks", Utf8, I64).unwrap();
    assert_eq!(ticks.get(&mut driver.inner, &"last".to_owned()).unwrap(), Some(25));
}
