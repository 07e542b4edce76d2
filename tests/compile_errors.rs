//! Mistakes that the compiler finds, with what it says about them.
//!
//! After a change of the compiler: `TRYBUILD=overwrite cargo test --no-default-features --features testing --test
//! compile_errors`, and read what has changed.

#[test]
fn the_compiler_finds_what_cannot_work() {
    trybuild::TestCases::new().compile_fail("tests/compile_errors/*.rs");
}
