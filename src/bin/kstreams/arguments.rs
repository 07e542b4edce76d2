//! The command line: the names are those of `kafka-streams-application-reset`.

use std::fs;

use kstreams::{ApplicationReset, Config, Error, ErrorKind, ResetTo, Result, TopicPartition};

use crate::time;

pub(crate) const USAGE: &str = "\
usage: kstreams reset --application-id ID [options]

Resets a stopped application: sets the offsets of its inputs, deletes its internal topics and its local state.
Look at a --dry-run first: what is deleted is gone.

  --application-id ID         the application
  --bootstrap-server SERVERS  host:port,...; localhost:9092 by default; embedded:///DIRECTORY is a cluster kept there
  --command-config FILE       settings of the Kafka client (librdkafka's), name=value a line

  --input-topics A,B          the inputs whose offsets are set; by default all that the application has committed
  --to-earliest               to the first record: the default
  --to-latest                 behind the last record
  --to-offset N               to this offset
  --to-datetime TIME          to the first record since 2026-01-31T18:00:00.000 (UTC, or with +01:00 behind)
  --by-duration DURATION      to the first record since so long ago: P1DT2H30M
  --shift-by N                so many records on from the committed offset; back if negative
  --from-file FILE            to TOPIC,PARTITION,OFFSET a line

  --internal-topics A,B       deletes these internal topics only
  --state-dir DIR             the application's state.dir; by default kafka-streams in the folder for temporary files
  --keep-state                leaves local state alone
  --force                     takes members out of the group that have stopped and whose sessions last
  --dry-run                   tells what would be done, and changes nothing

Other machines' local state has to be removed there. Output topics are left alone.";

#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Version,
    Reset(Box<Reset>),
}

#[derive(Debug)]
pub(crate) struct Reset {
    pub(crate) reset: ApplicationReset,
    pub(crate) mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Run,
    DryRun,
}

/// What was given, before it is put together.
#[derive(Debug, Default)]
struct Given {
    application_id: Option<String>,
    bootstrap: Option<String>,
    settings: Vec<(String, String)>,
    inputs: Option<Vec<String>>,
    internal: Option<Vec<String>>,
    /// With the option that has set it.
    to: Option<(String, ResetTo)>,
    state_dir: Option<String>,
    keeps_state: bool,
    is_forced: bool,
    is_dry: bool,
}

/// # Errors
/// `Invalid` with the option that cannot be.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Command> {
    let mut arguments = arguments;
    match arguments.next().as_deref() {
        Some("reset") => {}
        Some("--version" | "-V") => return Ok(Command::Version),
        None | Some("help" | "--help" | "-h") => return Ok(Command::Help),
        Some(other) => return Err(invalid(format!("there is no command {other}"))),
    }
    let mut given = Given::default();
    while let Some(argument) = arguments.next() {
        if matches!(argument.as_str(), "--help" | "-h") {
            return Ok(Command::Help);
        }
        let (name, attached) = match argument.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        given.take(&name, attached, &mut arguments)?;
    }
    given.command()
}

impl Given {
    fn take(&mut self, name: &str, attached: Option<String>, rest: &mut impl Iterator<Item = String>) -> Result<()> {
        if let "--to-earliest" | "--to-latest" | "--keep-state" | "--force" | "--dry-run" = name {
            if attached.is_some() {
                return Err(invalid(format!("{name} takes no value")));
            }
            return self.take_flag(name);
        }
        let known = ["--application-id", "--bootstrap-server", "--command-config", "--config-file", "--input-topics"];
        let more = ["--internal-topics", "--state-dir"];
        let targets = ["--to-offset", "--to-datetime", "--by-duration", "--shift-by", "--from-file"];
        if !known.iter().chain(&more).chain(&targets).any(|option| *option == name) {
            return Err(invalid(format!("there is no option {name}")));
        }
        let missing = || invalid(format!("{name} needs a value"));
        let value = attached.or_else(|| rest.next()).filter(|value| !value.is_empty()).ok_or_else(missing)?;
        match name {
            "--application-id" => self.application_id = Some(value),
            "--bootstrap-server" => self.bootstrap = Some(value),
            "--command-config" | "--config-file" => self.settings = properties(&value, &read(&value)?)?,
            "--input-topics" => self.inputs = Some(names(&value)),
            "--internal-topics" => self.internal = Some(names(&value)),
            "--state-dir" => self.state_dir = Some(value),
            _ => return self.set_target(name, target(name, &value)?),
        }
        Ok(())
    }

    fn take_flag(&mut self, name: &str) -> Result<()> {
        match name {
            "--to-earliest" => return self.set_target(name, ResetTo::Earliest),
            "--to-latest" => return self.set_target(name, ResetTo::Latest),
            "--keep-state" => self.keeps_state = true,
            "--force" => self.is_forced = true,
            _ => self.is_dry = true,
        }
        Ok(())
    }

    fn set_target(&mut self, name: &str, to: ResetTo) -> Result<()> {
        match self.to.replace((name.to_owned(), to)) {
            Some((before, _)) => Err(invalid(format!("{before} and {name} cannot both be: name one target"))),
            None => Ok(()),
        }
    }

    fn command(self) -> Result<Command> {
        let id = self.application_id.ok_or_else(|| invalid("--application-id is missing"))?;
        if self.keeps_state && self.state_dir.is_some() {
            return Err(invalid("--keep-state and --state-dir cannot both be"));
        }
        let mut config = Config::new(id, self.bootstrap.unwrap_or_else(|| "localhost:9092".to_owned()));
        for (name, value) in self.settings {
            config = config.kafka(&name, value);
        }
        if let Some(directory) = self.state_dir {
            config = config.state_dir(directory);
        }
        let mut reset = ApplicationReset::new(config);
        if let Some((_, to)) = self.to {
            reset = reset.to(to);
        }
        if let Some(topics) = self.inputs {
            reset = reset.input_topics(topics);
        }
        if let Some(topics) = self.internal {
            reset = reset.internal_topics(topics);
        }
        if self.keeps_state {
            reset = reset.keep_local_state();
        }
        if self.is_forced {
            reset = reset.remove_members();
        }
        let mode = if self.is_dry { Mode::DryRun } else { Mode::Run };
        Ok(Command::Reset(Box::new(Reset { reset, mode })))
    }
}

fn target(name: &str, value: &str) -> Result<ResetTo> {
    let wrong = |wanted: &str| invalid(format!("{name} {value}: give {wanted}"));
    match name {
        "--to-offset" => {
            let offset = value.parse::<i64>().ok().filter(|offset| *offset >= 0);
            Ok(ResetTo::Offset(offset.ok_or_else(|| wrong("a whole number from 0 on"))?))
        }
        "--shift-by" => Ok(ResetTo::ShiftBy(value.parse().map_err(|_| wrong("a whole number, as in 10 or -10"))?)),
        "--to-datetime" => {
            let time = time::datetime_ms(value);
            Ok(ResetTo::Timestamp(time.ok_or_else(|| wrong("a time as in 2026-01-31T18:00:00.000"))?))
        }
        "--by-duration" => {
            let ago = time::duration(value);
            Ok(ResetTo::Ago(ago.ok_or_else(|| wrong("a duration as in P1DT2H30M or PT90S"))?))
        }
        _ => Ok(ResetTo::Offsets(offsets(value, &read(value)?)?)),
    }
}

fn names(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn read(file: &str) -> Result<String> {
    fs::read_to_string(file).map_err(|error| invalid(format!("could not read {file}")).with_source(error))
}

/// `name=value` a line; empty lines and those that begin with # are left out.
fn properties(file: &str, text: &str) -> Result<Vec<(String, String)>> {
    let line = |(number, line): (usize, &str)| {
        let (name, value) =
            line.split_once('=').ok_or_else(|| invalid(format!("{file}, line {number}: write name=value")))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    lines(text).filter(|(_, line)| !line.starts_with('#')).map(line).collect()
}

/// `TOPIC,PARTITION,OFFSET` a line.
fn offsets(file: &str, text: &str) -> Result<Vec<(TopicPartition, i64)>> {
    let line = |(number, line): (usize, &str)| {
        let wrong = || invalid(format!("{file}, line {number}: write TOPIC,PARTITION,OFFSET"));
        let mut parts = line.split(',').map(str::trim);
        let (Some(topic), Some(partition), Some(offset), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let partition = TopicPartition::new(topic, partition.parse().map_err(|_| wrong())?);
        Ok((partition, offset.parse().map_err(|_| wrong())?))
    };
    let offsets: Vec<_> = lines(text).map(line).collect::<Result<_>>()?;
    if offsets.is_empty() {
        return Err(invalid(format!("{file} is empty: write TOPIC,PARTITION,OFFSET, a line for each partition")));
    }
    Ok(offsets)
}

/// Those that are not empty, numbered from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty())
}

fn invalid(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_option() {
        for (line, says) in [
            ("rest", "no command rest"),
            ("reset", "--application-id is missing"),
            ("reset --application-id", "needs a value"),
            ("reset --application-id a --to-offset -1", "--to-offset -1: give a whole number"),
            ("reset --application-id a --shift-by x", "--shift-by x"),
            ("reset --application-id a --to-datetime yesterday", "--to-datetime yesterday: give a time"),
            ("reset --application-id a --by-duration 2h", "--by-duration 2h: give a duration"),
            ("reset --application-id a --to-earliest --to-latest", "--to-earliest and --to-latest cannot both be"),
            ("reset --application-id a --intermediate-topics b", "no option --intermediate-topics"),
            ("reset --application-id a --dry-run=yes", "--dry-run takes no value"),
            ("reset --application-id a --keep-state --state-dir b", "cannot both be"),
            ("reset --application-id a --from-file there-is-none.csv", "could not read there-is-none.csv"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.to_string().contains(says), "{line}: {error}");
        }
    }

    #[test]
    fn a_value_stands_behind_the_option_or_is_attached() {
        let dry = |line: &str| match parsed(line).unwrap() {
            Command::Reset(reset) => reset.mode,
            Command::Help | Command::Version => panic!("{line}"),
        };
        assert_eq!(dry("reset --application-id a --shift-by -3 --dry-run"), Mode::DryRun);
        assert_eq!(dry("reset --application-id=a --shift-by=-3 --input-topics=b,c --force"), Mode::Run);
        assert!(matches!(parsed("reset --application-id a --help").unwrap(), Command::Help));
        assert!(matches!(parsed("--version").unwrap(), Command::Version));
    }

    #[test]
    fn a_file_has_a_partition_a_line() {
        let found = offsets("f", "orders,0,7\n\n orders, 1, 0 \n").unwrap();
        assert_eq!(found, [(TopicPartition::new("orders", 0), 7), (TopicPartition::new("orders", 1), 0)]);
        for text in ["", "orders,0", "orders,0,1,2", "orders,zero,1"] {
            assert!(offsets("f", text).unwrap_err().to_string().contains("TOPIC,PARTITION,OFFSET"), "{text}");
        }
    }

    #[test]
    fn settings_have_a_name_and_a_value() {
        let text = "# how to log in\nsecurity.protocol = sasl_ssl\nsasl.password=a=b\n";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [pair("security.protocol", "sasl_ssl"), pair("sasl.password", "a=b")];
        assert_eq!(properties("f", text).unwrap(), expected);
        assert!(properties("f", "\nnonsense").unwrap_err().to_string().contains("f, line 2"));
    }
}
