//! A window has a length, so its size is no number with a sign.

use kstreams::*;

fn main() {
    TimeWindows::of_size_with_no_grace(-60_000);
}
