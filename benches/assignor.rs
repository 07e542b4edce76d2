//! Milliseconds that a leader takes to assign the tasks of a large group: `cargo bench --bench assignor`.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a bench measures time and prints it")]

use std::time::Instant;

use kstreams::BenchGroup;

const MEMBERS: u32 = 1000;
const TASKS: u32 = 100_000;

fn main() {
    println!("{MEMBERS} members, {TASKS} tasks, 80 % of them with state");
    println!("{:44} {:>6} {:>9} {:>9} {:>9} {:>9}", "", "ms", "active", "awaiting", "standby", "warm-up");
    for (name, num_standby, racks) in [
        ("no standbys", 0, 0),
        ("one standby", 1, 0),
        ("two standbys, 3 racks", 2, 3),
        ("one, as many racks", 1, MEMBERS),
    ] {
        let mut group = BenchGroup::new(MEMBERS, TASKS, num_standby, racks);
        timed(name, "all tasks are new", &mut group);
        group.follow();
        timed(name, "nothing has changed", &mut group);
        (MEMBERS..MEMBERS + 100).for_each(|number| group.join(number, racks));
        timed(name, "100 more members", &mut group);
        let start = Instant::now();
        let settling = group.settle();
        println!(
            "{:44} {:6.0} for {} rebalances; {} moves, the fewest possible are {}",
            format!("{name}: until they have settled"),
            start.elapsed().as_secs_f64() * 1e3,
            settling.rounds,
            settling.moves,
            settling.fewest_moves
        );
        group.crash(100);
        timed(name, "100 members crash", &mut group);
    }
}

fn timed(name: &str, what: &str, group: &mut BenchGroup) {
    let start = Instant::now();
    group.assign();
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let [active, awaiting, standby, warmup] = group.counts();
    println!("{:44} {ms:6.0} {active:9} {awaiting:9} {standby:9} {warmup:9}", format!("{name}: {what}"));
}
