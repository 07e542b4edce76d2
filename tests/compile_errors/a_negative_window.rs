//! A window has a length, so neither its size nor its grace is a number with a sign.

use kstreams::*;
use std::time::Duration;

fn main() {
    TimeWindows::of_size_with_no_grace(-60_000);
    TimeWindows::of_size_and_grace(Duration::from_millis(10), -1);
    SlidingWindows::of_time_difference_with_no_grace(-1);
    JoinWindows::of_time_difference_and_grace(Duration::from_millis(5), -1);
}
