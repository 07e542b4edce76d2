use kstreams::*;

fn main() {
    TimeWindows::of_size_with_no_grace(-60_000);
}
