//! Counts the words of a text file, on a cluster inside the process or on a real Kafka.
//!
//!     cargo run --example word_count -- FILE
//!     cargo run --example word_count -- FILE --bootstrap localhost:9092 --create-topics

#![allow(clippy::disallowed_methods, reason = "an example shows a person what happens, as it happens")]

mod text;

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kstreams::{
    Config, Consumed, ConsumerRecord, Grouped, I64, KafkaStreams, Materialized, Produced, Serde, State, StreamsBuilder,
    TopicClient, TopicCreation, Topology, Utf8,
};

use text::TextFile;

const HELP: &str = "\
Counts the words of a text file and prints the most frequent ones: word_count FILE [OPTIONS]

The lines of FILE are written to the topic `lines`; what the topology counts is read from the topic `counts`.

  --bootstrap SERVERS    a Kafka, as in localhost:9092; or a cluster inside this process that is kept in a
                         directory, as in embedded://./DIRECTORY; by default one that is gone in the end
  --create-topics        create `lines` and `counts` (4 partitions each) if they are missing
  --application-id ID    default: word-count
  --state-dir DIR        where the counts are kept between runs; default: a folder for temporary files
  --top N                how many words are printed; default: 20
  --help                 this text

On a cluster that stays, a second run goes on from the committed offsets: nothing is counted twice, and the words
of FILE are added to the counts of the first one. Without FILE it counts what `lines` still holds and prints.
";

const IN_MEMORY: &str = "embedded://";
const PARTITIONS: i32 = 4;
/// Without a change of any count for so long, whatever else was in `lines` is counted, too.
const QUIET: Duration = Duration::from_secs(3);

/// The topology of the README.
fn topology() -> kstreams::Result<Topology> {
    let builder = StreamsBuilder::new();
    builder
        .stream("lines", Consumed::with(Utf8, Utf8))
        .flat_map_values(|line| text::words(&line))
        .group_by(|_line, word| word.clone(), Grouped::with(Utf8, Utf8))
        .count(Materialized::named("word-counts"))
        .to_stream()
        .to("counts", Produced::with(Utf8, I64));
    builder.build()
}

fn main() -> ExitCode {
    let done = Options::parse(std::env::args().skip(1)).and_then(|options| match options {
        Some(options) => tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(&options)),
        None => print(HELP),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("word_count: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    // State in memory and in a temporary directory is what is wanted there, and nothing to warn of.
    let level = if options.bootstrap == IN_MEMORY { "error" } else { "warn" };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into()))
        .with_writer(std::io::stderr)
        .init();

    // Before anything is started: a file that cannot be read should cost nobody a wait.
    let file = options.file.as_deref().map(TextFile::open).transpose()?;

    // What is counted in memory has no use for state on disk that outlives it.
    let temporary = tempfile::tempdir().context("could not make a temporary directory")?;
    let mut config = Config::new(&options.application_id, &options.bootstrap).exactly_once();
    if options.bootstrap == IN_MEMORY {
        config = config.state_dir(temporary.path());
    }
    if let Some(directory) = &options.state_dir {
        config = config.state_dir(directory);
    }
    if options.create_topics || options.bootstrap.starts_with(IN_MEMORY) {
        config = config.create_topics(TopicCreation::Everything { partitions: PARTITIONS });
    }

    let streams = KafkaStreams::new(topology()?, config.clone())?;
    streams.start()?;
    let counted = tokio::select! {
        counted = count(&streams, &config, file) => counted,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; the next run goes on from what is committed")),
    };
    streams.close(Duration::from_secs(30))?;
    if let Some(error) = streams.take_error() {
        return Err(error.into());
    }
    print_counts(&counted?, options.top)
}

/// Writes the lines and waits until everything is counted.
async fn count(streams: &KafkaStreams, config: &Config, file: Option<TextFile>) -> Result<HashMap<String, i64>> {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    while streams.state() != State::Running {
        ticks.tick().await;
        ensure_alive(streams)?;
    }
    let mut topics = TopicClient::connect(config)?;
    let mut counts = HashMap::new();
    read_counts(&mut topics, &mut counts)?;
    let mut expected = total(&counts);
    let is_given = file.is_some();
    if let Some(mut file) = file {
        while let Some(line) = file.next_line()? {
            expected += i64::try_from(text::words(&line).len())?;
            // The key only spreads the lines over the partitions.
            topics.write("lines", Some(file.lines.to_string().as_bytes()), Some(line.as_bytes()))?;
            if file.lines % 1024 == 0 {
                ensure_alive(streams)?;
                tokio::task::yield_now().await;
            }
        }
        topics.flush()?;
        eprintln!("{file}");
    }

    let (mut taken, mut counted, mut told) = (0, Instant::now(), Instant::now());
    loop {
        ticks.tick().await;
        ensure_alive(streams)?;
        let before = std::mem::replace(&mut taken, streams.processed_total());
        if read_counts(&mut topics, &mut counts)? > 0 || taken != before {
            counted = Instant::now();
        }
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            match is_given {
                true => eprintln!("{} of {expected} words counted", total(&counts)),
                false => eprintln!("{} words counted", total(&counts)),
            }
        }
        // Without FILE, and after a run that was interrupted, nobody knows what is still to come.
        if is_given && total(&counts) == expected || counted.elapsed() > QUIET {
            return Ok(counts);
        }
    }
}

/// Takes the committed counts that are new; how many there were.
fn read_counts(topics: &mut TopicClient, counts: &mut HashMap<String, i64>) -> Result<usize> {
    let mut bad = None;
    let read = topics.read("counts", Duration::from_secs(5), |record| {
        if let Err(error) = take(counts, record) {
            bad = Some(error.context(format!("could not read counts[{}]@{}", record.partition, record.offset)));
        }
    })?;
    bad.map_or(Ok(read), Err)
}

fn take(counts: &mut HashMap<String, i64>, record: &ConsumerRecord<'_>) -> Result<()> {
    let word = Utf8.deserialize(record.key.context("there is no word")?)?;
    counts.insert(word, I64.deserialize(record.value.context("there is no count")?)?);
    Ok(())
}

fn ensure_alive(streams: &KafkaStreams) -> Result<()> {
    let has_ended = matches!(streams.state(), State::Error | State::NotRunning | State::PendingError);
    ensure!(!has_ended, "the topology has stopped before its work was done");
    Ok(())
}

fn total(counts: &HashMap<String, i64>) -> i64 {
    counts.values().sum()
}

fn print_counts(counts: &HashMap<String, i64>, top: usize) -> Result<()> {
    let mut words: Vec<_> = counts.iter().collect();
    words.sort_by_key(|(word, count)| (-**count, word.as_str()));
    let mut lines: Vec<String> = words.iter().take(top).map(|(word, count)| format!("{count:>8}  {word}\n")).collect();
    lines.push(format!("{} words, {} of them different\n", total(counts), counts.len()));
    print(&lines.concat())
}

/// A closed pipe (`| head`) is no failure.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

struct Options {
    file: Option<PathBuf>,
    bootstrap: String,
    create_topics: bool,
    application_id: String,
    state_dir: Option<PathBuf>,
    top: usize,
}

impl Options {
    /// None: help is wanted.
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Options>> {
        let mut options = Options {
            file: None,
            bootstrap: IN_MEMORY.to_owned(),
            create_topics: false,
            application_id: "word-count".to_owned(),
            state_dir: None,
            top: 20,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value: see --help"));
            match word.as_str() {
                "--bootstrap" => options.bootstrap = value()?,
                "--create-topics" => options.create_topics = true,
                "--application-id" => options.application_id = value()?,
                "--state-dir" => options.state_dir = Some(value()?.into()),
                "--top" => options.top = value()?.parse().context("--top needs a number")?,
                "--help" | "-h" => return Ok(None),
                _ if word.starts_with("--") => bail!("unknown option {word}: see --help"),
                _ if options.file.is_none() => options.file = Some(word.into()),
                _ => bail!("more than one file is named, {word} too: see --help"),
            }
        }
        if options.file.is_none() && options.bootstrap == IN_MEMORY {
            bail!("no file is named: see --help");
        }
        Ok(Some(options))
    }
}
