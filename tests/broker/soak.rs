//! A long run under load with restarts, which looks at what the instances hold: memory, threads and open files.
//!
//! `KSTREAMS_SOAK_MINUTES=30` asks for it. One instance runs from the beginning to the end; the others are restarted in
//! turn. A stretch is what lies between two restarts of one instance; the medians of its second and its last fifth are
//! compared, which leaves out what it takes to start.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use kstreams::GroupProtocol;

use crate::chaos::{Chaos, cluster, number};
use crate::instance::Sample;

/// Lines a second.
const RATE: u64 = 400;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(5);

/// Between two restarts.
const RESTART_EVERY: Duration = Duration::from_secs(180);

/// Those that are restarted. The other one never is.
const RESTARTED: [usize; 2] = [1, 2];

/// A stretch with fewer samples is shown only: what a process has not had the time to fill yet would count as growth.
const JUDGED_FROM: usize = 60;

/// Of memory, in hundredths.
const GROWTH_MAX: f64 = 10.0;

/// They come and go with every compaction; a client that is left behind has ten.
const FILES_MAX: u64 = 4;

/// What one process has held, every five seconds.
struct Stretch {
    instance: usize,
    process: u32,
    from: Duration,
    samples: Vec<Sample>,
}

#[test]
fn an_instance_holds_no_more_after_half_an_hour_than_after_some_minutes() {
    let Some(minutes) = number("KSTREAMS_SOAK_MINUTES") else { return };
    let Some((kafka, _alone)) = cluster() else { return };
    let length = Duration::from_secs(60 * minutes);
    let mut chaos = Chaos::start(kafka, "soak", GroupProtocol::Sticky, RATE);
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut turns = RESTARTED.iter().cycle();
    let begun = Instant::now();
    let (mut sampled, mut restarted) = (begun, begun);
    while begun.elapsed() < length {
        chaos.step();
        if sampled.elapsed() >= EVERY {
            sampled += EVERY;
            sample(&chaos, begun.elapsed(), &mut stretches);
        }
        // None in the last minutes: what is measured last is then a stretch that is long enough.
        if restarted.elapsed() >= RESTART_EVERY
            && begun.elapsed() + RESTART_EVERY < length
            && let Some(n) = turns.next()
        {
            restarted += RESTART_EVERY;
            chaos.terminate(*n, Duration::from_millis(500));
            save(&stretches);
        }
    }
    save(&stretches);
    let (table, has_grown) = table(&stretches);
    chaos.say(&format!("what the instances hold\n{table}"));
    chaos.finish();
    assert!(!has_grown, "an instance holds more and more\n{table}");
}

fn sample(chaos: &Chaos, at: Duration, stretches: &mut Vec<Stretch>) {
    for (instance, running) in chaos.up() {
        let (process, Some(sample)) = (running.process(), running.sample()) else { continue };
        match stretches.iter_mut().find(|stretch| stretch.process == process) {
            Some(stretch) => stretch.samples.push(sample),
            None => stretches.push(Stretch { instance, process, from: at, samples: vec![sample] }),
        }
    }
}

/// What has been measured so far, so that a run that is ended early has been worth something.
fn save(stretches: &[Stretch]) {
    if let Some(file) = env::var_os("KSTREAMS_SOAK_FILE") {
        fs::write(file, table(stretches).0 + "\n" + &rows(stretches)).unwrap();
    }
}

/// All samples, one a line.
fn rows(stretches: &[Stretch]) -> String {
    let mut rows = "instance,process,s,resident_kib,threads,files\n".to_owned();
    for Stretch { instance, process, from, samples } in stretches {
        for (n, Sample { resident_kib, threads, files }) in (0..).zip(samples) {
            let at = (*from + EVERY * n).as_secs();
            writeln!(rows, "{instance},{process},{at},{resident_kib},{threads},{files}").unwrap();
        }
    }
    rows
}

/// The medians of the second and of the last fifth, and whether any stretch has grown.
fn table(stretches: &[Stretch]) -> (String, bool) {
    let mut table = "| instance | from s | for s | resident MiB | change | threads | files | |\n".to_owned();
    table += "|---|---|---|---|---|---|---|---|\n";
    let mut has_grown = false;
    for Stretch { instance, from, samples, .. } in stretches {
        let fifth = samples.len() / 5;
        if fifth == 0 {
            continue;
        }
        let (early, late) = (&samples[fifth..2 * fifth], &samples[4 * fifth..]);
        let both = |of: fn(&Sample) -> u64| [early, late].map(|samples| median(samples.iter().map(of).collect()));
        let (resident, threads, files) =
            (both(|sample| sample.resident_kib), both(|sample| sample.threads), both(|sample| sample.files));
        let growth = (resident[1] as f64 / resident[0] as f64 - 1.0) * 100.0;
        let is_judged = samples.len() >= JUDGED_FROM;
        let more_files = files[1] > files[0] + FILES_MAX;
        let grows = growth > GROWTH_MAX || threads[1] > threads[0] || more_files;
        has_grown |= is_judged && grows;
        let verdict = match (is_judged, grows) {
            (false, _) => "short",
            (true, true) => "grows",
            (true, false) => "flat",
        };
        let seconds = samples.len() as u64 * EVERY.as_secs();
        let [[r0, r1], [t0, t1], [f0, f1]] = [resident.map(|kib| kib / 1024), threads, files];
        let from = from.as_secs();
        writeln!(
            table,
            "| {instance} | {from} | {seconds} | {r0} to {r1} | {growth:+.1} % | {t0} to {t1} | {f0} to {f1} | {verdict} |"
        )
        .unwrap();
    }
    (table, has_grown)
}

fn median(mut numbers: Vec<u64>) -> u64 {
    numbers.sort_unstable();
    numbers[numbers.len() / 2]
}
