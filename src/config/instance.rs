//! What sets one instance apart from the others: where it can be asked, and where it stands.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::Config;
use crate::error::{Error, Result};

/// Where an instance can be asked for what it has: Java's `HostInfo`.
///
/// ```
/// let host: kstreams::HostInfo = "orders-1.example.com:8080".parse().unwrap();
/// assert_eq!((host.host.as_str(), host.port), ("orders-1.example.com", 8080));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostInfo {
    /// A name or an address; one of IPv6 without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// `host:port`, as in `application.server`; a scheme before it is left out.
impl FromStr for HostInfo {
    type Err = Error;

    fn from_str(text: &str) -> Result<HostInfo> {
        let refused = || Error::invalid(format!("\"{text}\" is no address: write it as host:port"));
        let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
        let (host, port) = bare.rsplit_once(':').ok_or_else(refused)?;
        let port = port.parse().map_err(|error| refused().with_source(error))?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_name = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '[' | ']'));
        if is_name { Ok(HostInfo { host: host.to_owned(), port }) } else { Err(refused()) }
    }
}

impl fmt::Display for HostInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostInfo { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Java's bounds: everything that an instance tells of itself is in every assignment.
const RACK_TAGS_MAX: usize = 5;
const TAG_KEY_MAX: usize = 20;
const TAG_VALUE_MAX: usize = 30;

impl Config {
    /// Where this instance can be asked for its state, as `host:port` (`application.server`): the others are told by the
    /// group ([`KafkaStreams::all_metadata`](crate::KafkaStreams::all_metadata)). Who listens there is the program's affair.
    /// An address that changes is told with the next start.
    pub fn application_server(self, address: impl Into<String>) -> Config {
        let address = address.into();
        Config { application_server: Some(address).filter(|address| !address.is_empty()), ..self }
    }

    /// Where this instance stands: `client_tag("zone", "eu-1a")` (`client.tag.zone`). Standbys go where the tags of
    /// [`rack_aware_assignment_tags`](Config::rack_aware_assignment_tags) differ. A key has at most 20 bytes, a value 30.
    pub fn client_tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Config {
        self.client_tags.insert(key.into(), value.into());
        self
    }

    /// The tags in which the instances that have copies of a task are to differ, the most important first
    /// (`rack.aware.assignment.tags`), at most five: with `["zone"]` the loss of a zone leaves a copy of everything. The same
    /// in all instances, and each of them has every one of these tags.
    ///
    /// # Examples
    /// ```
    /// let config = kstreams::Config::new("counting", "broker:9092")
    ///     .num_standby_replicas(1)
    ///     .client_tag("zone", "eu-1a")
    ///     .rack_aware_assignment_tags(["zone"]);
    /// ```
    pub fn rack_aware_assignment_tags<T: Into<String>>(self, tags: impl IntoIterator<Item = T>) -> Config {
        Config { rack_tags: tags.into_iter().map(Into::into).collect(), ..self }
    }

    /// How long a stream thread may take for one turn, calls of the program's own code among them, before its tasks are
    /// given to others (`max.poll.interval.ms`, 5 min). What it has not committed by then is done again there; when it comes
    /// back, it takes part again. Until then the instance takes no new tasks. With
    /// [`GroupProtocol::Streams`](crate::GroupProtocol::Streams) it keeps them, and the log says so. More than the slowest batch of 512 records
    /// takes, and than the slowest call.
    pub fn max_poll_interval(self, interval: Duration) -> Config {
        Config { max_poll_interval: interval, ..self }
    }

    /// Whether [`KafkaStreams::close`](crate::KafkaStreams::close) without other options, and so a signal that ends
    /// [`run_until_signal`](crate::KafkaStreams::run_until_signal), leaves the group for good and hands the tasks over
    /// (`internal.leave.group.on.close`). By default an instance with an identity is expected back: this is for those that
    /// are started and ended as the load asks for it.
    pub fn leave_group_on_close(self, leave: bool) -> Config {
        Config { leave_on_close: leave, ..self }
    }

    /// A setting of the program's own, which processors ask for by its name, where they are made and later: Java's
    /// `appConfigs`.
    ///
    /// ```
    /// use kstreams::*;
    ///
    /// struct Rated {
    ///     rate: f64,
    /// }
    ///
    /// impl Processor<String, f64> for Rated {
    ///     type KeyOut = String;
    ///     type ValueOut = f64;
    ///
    ///     fn process(&mut self, record: Record<String, f64>, ctx: &mut ProcessorContext<'_, String, f64>) -> Result<()> {
    ///         let value = record.value * self.rate;
    ///         ctx.forward(record.with_value(value))
    ///     }
    /// }
    ///
    /// let builder = StreamsBuilder::new();
    /// let rated = |init: &mut ProcessorInit<'_>| {
    ///     let rate = init.app_setting("rate").and_then(|rate| rate.parse().ok()).unwrap_or(1.0);
    ///     Ok(Rated { rate })
    /// };
    /// let prices = builder.stream("prices", Consumed::with(Utf8, F64));
    /// prices.process(rated, Processed::default()).to("rated", Produced::with(Utf8, F64));
    /// let config = Config::new("rating", "broker:9092").app_setting("rate", "1.5");
    /// let mut driver = TopologyTestDriver::with_config(&builder.build()?, &config)?;
    /// driver.create_input_topic("prices", Utf8, F64).pipe(&mut driver, "a", 2.0)?;
    /// assert_eq!(driver.create_output_topic("rated", Utf8, F64).read_all(&mut driver)?[0].value, 3.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn app_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Config {
        Arc::make_mut(&mut self.app_settings).insert(name.into(), value.into());
        self
    }

    /// The folder of this application, which may not be there yet.
    pub(crate) fn application_dir(&self) -> Arc<Path> {
        self.state_dir_or_default().join(&self.application_id).into()
    }

    pub(crate) fn own_host(&self) -> Option<HostInfo> {
        self.application_server.as_ref().and_then(|address| address.parse().ok())
    }

    /// # Errors
    /// `Invalid` for an address or tags that cannot be.
    pub(super) fn check_instance(&self) -> Result<()> {
        if let Some(address) = &self.application_server {
            address
                .parse::<HostInfo>()
                .map_err(|error| Error::invalid("application.server is wrong").with_source(error))?;
        }
        let too_long = |(key, value): &(&String, &String)| {
            key.is_empty() || key.len() > TAG_KEY_MAX || value.is_empty() || value.len() > TAG_VALUE_MAX
        };
        if let Some((key, value)) = self.client_tags.iter().find(too_long) {
            return Err(Error::invalid(format!(
                "the tag {key} cannot be \"{value}\": a key has 1 to {TAG_KEY_MAX} bytes, a value 1 to {TAG_VALUE_MAX}"
            )));
        }
        if self.rack_tags.len() > RACK_TAGS_MAX {
            return Err(Error::invalid(format!("rack.aware.assignment.tags has more than {RACK_TAGS_MAX} tags")));
        }
        if let Some(tag) = self.rack_tags.iter().find(|tag| !self.client_tags.contains_key(*tag)) {
            return Err(Error::invalid(format!(
                "rack.aware.assignment.tags has {tag}, and this instance has no such tag: set client_tag(\"{tag}\", …)"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        let read = |text: &str| text.parse::<HostInfo>().map(|host| (host.to_string(), host.host));
        assert_eq!(read("a:1").unwrap(), ("a:1".to_owned(), "a".to_owned()));
        assert_eq!(read("http://a.b:80").unwrap().0, "a.b:80");
        assert_eq!(read("[::1]:80").unwrap(), ("[::1]:80".to_owned(), "::1".to_owned()));
        for wrong in ["", "a", "a:", ":1", "a:70000", "a b:1", "a/b:1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tags_are_those_that_every_instance_can_be_told_of() {
        let config = || Config::new("app", "embedded://");
        let wrong = [
            config().application_server("here"),
            config().client_tag("", "a"),
            config().client_tag("zone", "a".repeat(31)),
            config().rack_aware_assignment_tags(["zone"]),
            config().rack_aware_assignment_tags(["a", "b", "c", "d", "e", "f"]),
        ];
        wrong.into_iter().for_each(|config| _ = config.check().unwrap_err());
        let zoned = config().application_server("here:1").client_tag("zone", "a").rack_aware_assignment_tags(["zone"]);
        zoned.check().unwrap();
    }
}
