//! Joins of two tables on their key.

use crate::*;

fn tables(builder: &StreamsBuilder) -> (KTable<String, String>, KTable<String, String>) {
    let table = |topic| builder.table(topic, text(), Materialized::default());
    (table("left"), table("right"))
}

#[test]
fn either_side_changes_the_result_and_the_later_time_counts() {
    let builder = StreamsBuilder::new();
    let (left, right) = tables(&builder);
    left.join(&right, |l, r| format!("{l}+{r}")).to_stream().to("out", to_text());
    let mut driver = Driver::new(builder);
    assert!(driver.pipe("left", "a", "A", 5).is_empty());
    assert_eq!(driver.pipe("right", "a", "1", 3), ["out a A+1 @5"]);
    assert_eq!(driver.pipe("left", "a", "B", 4), ["out a B+1 @4"]);
    assert_eq!(driver.pipe("right", "a", "2", 9), ["out a B+2 @9"]);
    assert_eq!(driver.delete("left", "a", 6), ["out a - @9"]);
    assert_eq!(driver.delete("left", "a", 7), ["out a - @9"], "a deletion of nothing is one, as in Java");
    assert!(driver.delete("right", "a", 10).is_empty());
}

#[test]
fn an_outer_join_has_a_row_as_long_as_one_of_the_two_is_there() {
    let builder = StreamsBuilder::new();
    let (left, right) = tables(&builder);
    let shown = |row: Option<String>| row.unwrap_or_else(|| "none".to_owned());
    left.outer_join(&right, move |l, r| format!("{}+{}", shown(l), shown(r))).to_stream().to("out", to_text());
    let mut driver = Driver::new(builder);
    assert!(driver.delete("left", "a", 1).is_empty());
    assert_eq!(driver.pipe("right", "a", "1", 2), ["out a none+1 @2"]);
    assert_eq!(driver.pipe("left", "a", "A", 3), ["out a A+1 @3"]);
    assert_eq!(driver.delete("right", "a", 4), ["out a A+none @4"]);
    assert_eq!(driver.delete("left", "a", 5), ["out a - @5"]);
}

#[test]
fn a_joiner_may_give_no_row() {
    let builder = StreamsBuilder::new();
    let (left, right) = tables(&builder);
    let joined = |l: String, r: Option<String>| (l != "x").then(|| format!("{l}+{}", r.unwrap_or_default()));
    left.clone().left_join_filter_map(&right, joined).to_stream().to("plain", to_text());
    let rows = Materialized::named("joined").with_value_serde(Utf8);
    left.left_join_materialized(&right, joined, rows).to_stream().to("stored", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("left", "a", "A", 1), ["plain a A+ @1", "stored a A+ @1"]);
    assert_eq!(driver.pipe("left", "a", "x", 2), ["plain a - @2", "stored a - @2"]);
    let mut rows = driver.inner.timestamped_key_value_store("joined", Utf8, Utf8).unwrap();
    assert_eq!(rows.get(&mut driver.inner, &"a".to_owned()).unwrap(), None);
}

#[test]
fn a_grouped_join_knows_what_its_rows_were() {
    for stored in [false, true] {
        let builder = StreamsBuilder::new();
        let (left, right) = tables(&builder);
        let joined = match stored {
            false => left.join(&right, |l, r| l + &r),
            true => left.join_materialized(&right, |l, r| l + &r, Materialized::with(Utf8, Utf8)),
        };
        joined
            .group_by(|key, row| (row.clone(), key.clone()), grouped())
            .count(Materialized::named("counts"))
            .to_stream()
            .to("out", Produced::with(Utf8, I64));
        let mut driver = Driver::new(builder);
        driver.pipe("left", "a", "x", 1);
        assert_eq!(driver.pipe("right", "a", "y", 2), ["out xy 1 @2"]);
        assert_eq!(driver.pipe("right", "b", "y", 3), [""; 0]);
        assert_eq!(driver.pipe("left", "b", "x", 4), ["out xy 2 @4"]);
        assert_eq!(driver.pipe("left", "a", "z", 5), ["out xy 1 @5", "out zy 1 @5"], "stored: {stored}");
        assert_eq!(driver.delete("right", "b", 6), ["out xy 0 @6"]);
    }
}

#[test]
fn a_result_without_a_store_is_joined_anew_for_a_reader() {
    let builder = StreamsBuilder::new();
    let (left, right) = tables(&builder);
    let joined = left.left_join(&right, |l, r| format!("{l}+{}", r.unwrap_or_default()));
    assert_eq!(joined.queryable_name(), None);
    let joined_by = Joined::with(Utf8, Utf8);
    builder.stream("stream", text()).join(&joined, |s, row| format!("{s}:{row}"), joined_by).to("out", to_text());
    let mut driver = Driver::new(builder);
    assert!(driver.pipe("stream", "a", "s", 1).is_empty());
    driver.pipe("left", "a", "A", 2);
    assert_eq!(driver.pipe("stream", "a", "s", 3), ["out a s:A+ @3"]);
    driver.pipe("right", "a", "1", 4);
    assert_eq!(driver.pipe("stream", "a", "s", 5), ["out a s:A+1 @5"]);
}

#[test]
fn a_table_is_joined_with_itself() {
    let builder = StreamsBuilder::new();
    let table = builder.table("left", text(), Materialized::default());
    table.clone().join(&table, |l, r| l + &r).to_stream().to("out", to_text());
    let mut driver = Driver::new(builder);
    assert_eq!(driver.pipe("left", "a", "x", 1), ["out a xx @1", "out a xx @1"], "one result for each side");
}

#[test]
fn tables_of_two_builders_are_not_joined() {
    let (builder, other) = (StreamsBuilder::new(), StreamsBuilder::new());
    let (left, _) = tables(&builder);
    let (_, right) = tables(&other);
    left.clone().join(&right, |l, r| l + &r).to_stream().to("out", to_text());
    left.join_foreign_key(&right, |_, l| l.clone(), |l, r| l + &r, TableJoined::default());
    let error = build_error(builder);
    assert!(error.contains("joins tables of two builders: begin both with the same one"), "{error}");
}

#[test]
fn a_stored_result_needs_its_serde() {
    let builder = StreamsBuilder::new();
    let (left, right) = tables(&builder);
    left.join_materialized(&right, |l, r| l + &r, Materialized::<_, String>::named("joined"));
    assert!(build_error(builder).contains("store joined has no value serde: give it one with"));
}
