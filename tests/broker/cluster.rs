//! A real Kafka for tests: one to three brokers on free ports of this machine, gone when the test is.

use std::env;
use std::fs;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What the slowest command is allowed on a busy machine: a start fetches Kafka's jars when they are not there.
const COMMAND: Duration = Duration::from_secs(300);

/// Brokers of `scripts/kafka/kafka`, and the folder of their data.
///
/// ```text
///   test process --pipe--> watchdog: waits for the pipe's end, then kills the brokers and removes the folder
/// ```
///
/// The pipe ends when this value is dropped and also when the test process dies in any way, so that no broker outlives a
/// killed run.
#[derive(Debug)]
pub(crate) struct TestKafka {
    dir: PathBuf,
    ports: Ports,
    brokers: u16,
    watchdog: Child,
}

impl TestKafka {
    /// One broker for all tests of this binary, as a start takes six seconds. Tests keep apart by the names of their topics.
    ///
    /// None when broker tests are off.
    pub(crate) fn shared() -> Option<&'static TestKafka> {
        static SHARED: OnceLock<Option<TestKafka>> = OnceLock::new();
        SHARED.get_or_init(|| TestKafka::start(1)).as_ref()
    }

    /// Brokers of its own for a test that breaks them: one or three.
    ///
    /// None when broker tests are off.
    ///
    /// # Panics
    /// When they are on, and the brokers do not start.
    pub(crate) fn start(brokers: u16) -> Option<TestKafka> {
        TestKafka::launch(brokers, "")
    }

    /// One broker with settings of its own, a line each.
    pub(crate) fn start_with(settings: &str) -> Option<TestKafka> {
        TestKafka::launch(1, settings)
    }

    fn launch(brokers: u16, settings: &str) -> Option<TestKafka> {
        // One start at a time: two cores do not carry more, and ports stay free between the look and the use.
        static STARTING: Mutex<u16> = Mutex::new(0);
        let mut started = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if !enabled() {
            return None;
        }
        *started += 1;
        let dir = env::temp_dir().join(format!("kstreams-broker-{}-{started}", process::id()));
        let mut failure = String::new();
        // Another process may be quicker in taking the port.
        for _ in 0..3 {
            fs::create_dir_all(&dir).unwrap();
            let kafka = TestKafka { ports: Ports::reserve(brokers), brokers, watchdog: watch(&dir), dir: dir.clone() };
            let port = kafka.ports.first;
            fs::write(dir.join("properties"), with_credentials(port) + settings).unwrap();
            match kafka.script(&["start", &kafka.folder(), &port.to_string(), &brokers.to_string()]) {
                Ok(_) => return Some(kafka),
                Err(error) => failure = error,
            }
        }
        panic!("no broker started: {failure}");
    }

    /// The addresses of all brokers, for `bootstrap.servers`.
    pub(crate) fn bootstrap(&self) -> String {
        let address = |n| format!("127.0.0.1:{}", self.ports.first + 10 * n);
        (0..self.brokers).map(address).collect::<Vec<_>>().join(",")
    }

    /// Where a single broker asks for the credentials of alice, who may do everything, or bob, who may do what
    /// [`acls`](TestKafka::acls) allow. The password of both is secret.
    pub(crate) fn bootstrap_with_credentials(&self) -> String {
        format!("127.0.0.1:{}", self.ports.first + 2)
    }

    /// Runs Kafka's own tool for rights: what bob may do to what begins with a name.
    pub(crate) fn acls(&self, change: &str, kinds: &[&str], prefix: &str) -> Result<(), String> {
        let (class, bootstrap) = ("org.apache.kafka.tools.AclCommand", self.bootstrap());
        let fixed = ["run", class, "--bootstrap-server", &bootstrap, change, "--force"];
        let whom = ["--allow-principal", "User:bob", "--operation", "All", "--resource-pattern-type", "prefixed"];
        let what: Vec<&str> = kinds.iter().flat_map(|kind| [*kind, prefix]).collect();
        self.script(&[&fixed[..], &whom[..], &what].concat()).map(drop)
    }

    /// Ends broker `n`, counted from 1, as a power cut does.
    pub(crate) fn kill(&self, n: u16) -> Result<(), String> {
        self.script(&["kill", &self.folder(), &n.to_string()]).map(drop)
    }

    /// Starts broker `n` again on its data, after ending it cleanly if it runs.
    pub(crate) fn restart(&self, n: u16) -> Result<(), String> {
        self.script(&["restart", &self.folder(), &n.to_string()]).map(drop)
    }

    /// The folder of Kafka's jars, those of Kafka Streams for Java among them.
    pub(crate) fn home(&self) -> String {
        self.script(&["home"]).unwrap().trim().to_owned()
    }

    /// Runs Kafka's own topic tool and gives what it printed. A second client is the witness in tests.
    pub(crate) fn topics(&self, arguments: &[&str]) -> Result<String, String> {
        let bootstrap = self.bootstrap();
        self.script(&[&["topics", "--bootstrap-server", &bootstrap], arguments].concat())
    }

    /// Sets what the broker decides for a group, `name=value,name=value`, before it is there or while it lives.
    pub(crate) fn configure_group(&self, group: &str, settings: &str) {
        let bootstrap = self.bootstrap();
        let fixed = ["run", "kafka.admin.ConfigCommand", "--bootstrap-server", &bootstrap, "--entity-type", "groups"];
        self.script(&[&fixed[..], &["--entity-name", group, "--alter", "--add-config", settings]].concat()).unwrap();
    }

    /// Runs Kafka's own reset tool for an application.
    pub(crate) fn reset_tool(&self, application: &str, arguments: &[&str]) -> Result<String, String> {
        let bootstrap = self.bootstrap();
        let fixed = ["run", "org.apache.kafka.tools.StreamsResetter", "--bootstrap-server", &bootstrap];
        self.script(&[&fixed[..], &["--application-id", application], arguments].concat())
    }

    /// Sets what brokers keep for a group: `name=value`, separated by commas.
    pub(crate) fn group_settings(&self, group: &str, settings: &str) -> Result<(), String> {
        let bootstrap = self.bootstrap();
        let fixed = ["run", "kafka.admin.ConfigCommand", "--bootstrap-server", &bootstrap, "--alter"];
        let of_group = ["--entity-type", "groups", "--entity-name", group, "--add-config", settings];
        self.script(&[&fixed[..], &of_group[..]].concat()).map(drop)
    }

    /// Writes `key:value` lines to a topic with Kafka's own console producer.
    pub(crate) fn produce(&self, topic: &str, lines: &[String]) -> Result<(), String> {
        let class = "org.apache.kafka.tools.ConsoleProducer";
        let (bootstrap, keys) = (self.bootstrap(), ["--property", "parse.key=true", "--property", "key.separator=:"]);
        let arguments = [&["run", class, "--bootstrap-server", &bootstrap, "--topic", topic], &keys[..]].concat();
        let mut command = self.command(&arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let input = child.stdin.take().ok_or("no stdin")?;
        (&input).write_all((lines.join("\n") + "\n").as_bytes()).map_err(|error| error.to_string())?;
        drop(input);
        let Output { status, stderr, .. } = child.wait_with_output().map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&stderr).into_owned()) }
    }

    /// Every committed record of a topic of counts, read with Kafka's own console consumer.
    pub(crate) fn committed_counts(&self, topic: &str) -> Result<Vec<(String, i64)>, String> {
        let class = "org.apache.kafka.tools.consumer.ConsoleConsumer";
        let bootstrap = self.bootstrap();
        let fixed = ["--from-beginning", "--isolation-level", "read_committed", "--timeout-ms", "3000"];
        let deserializer = "value.deserializer=org.apache.kafka.common.serialization.LongDeserializer";
        let shown = ["--property", "print.key=true", "--property", deserializer];
        let arguments =
            [&["run", class, "--bootstrap-server", &bootstrap, "--topic", topic], &fixed[..], &shown[..]].concat();
        let text = self.script(&arguments)?;
        let row =
            |line: &str| line.split_once('\t').and_then(|(key, count)| Some((key.to_owned(), count.parse().ok()?)));
        Ok(text.lines().filter_map(row).collect())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(script_path());
        command.args(arguments).env("KAFKA_HEAP", env::var("KAFKA_HEAP").unwrap_or("256m".into()));
        if self.brokers == 1 {
            command.env("KAFKA_PROPERTIES", self.dir.join("properties"));
        }
        command
    }

    fn folder(&self) -> String {
        self.dir.display().to_string()
    }

    fn script(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.command(arguments);
        let Output { status, stdout, stderr } = output_within(COMMAND, &mut command)?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if status.success() {
            Ok(text(&stdout))
        } else {
            Err(format!("kafka {}: {status}\n{}{}", arguments.join(" "), text(&stdout), text(&stderr)))
        }
    }
}

impl Drop for TestKafka {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// Settings of a broker that has one more listener than usual. The last value of a setting counts.
fn with_credentials(port: u16) -> String {
    let (controller, credentials) = (port + 1, port + 2);
    format!(
        "listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},CREDENTIALS://127.0.0.1:{credentials}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port},CREDENTIALS://127.0.0.1:{credentials}\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,CREDENTIALS:SASL_PLAINTEXT\n\
         listener.name.credentials.sasl.enabled.mechanisms=PLAIN\n\
         listener.name.credentials.plain.sasl.jaas.config=\
         org.apache.kafka.common.security.plain.PlainLoginModule required user_alice=\"secret\" user_bob=\"secret\";\n\
         authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         super.users=User:ANONYMOUS;User:alice\n"
    )
}

fn script_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka/kafka")
}

/// A process of its own group, so that Ctrl-C in the terminal does not end it before its work.
fn watch(dir: &Path) -> Child {
    let script = r#"cat; "$0" kill "$1"; rm -rf "$1""#;
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(script_path()).arg(dir);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().unwrap()
}

/// Whether broker tests run. Says once why not, past the test harness, which swallows what passing tests print.
fn enabled() -> bool {
    static ENABLED: OnceLock<bool> = OnceLock::new();
    *ENABLED.get_or_init(|| {
        let reason = if env::var_os("KSTREAMS_BROKER_TESTS").is_none_or(|value| value == "0") {
            "KSTREAMS_BROKER_TESTS is not set"
        } else if !(runs("java", "-version") && runs("mvn", "-version")) {
            assert!(env::var_os("CI").is_none(), "CI tests on a real Kafka: install Java 17 and Maven");
            "they need Java 17 and Maven"
        } else {
            return true;
        };
        let _ = writeln!(io::stderr(), "tests on a real Kafka are skipped: {reason}");
        false
    })
}

fn runs(program: &str, argument: &str) -> bool {
    Command::new(program).arg(argument).output().is_ok_and(|Output { status, .. }| status.success())
}

/// What a command printed. One that takes longer is told to say what it does (Java prints its threads), then killed.
pub(crate) fn output_within(limit: Duration, command: &mut Command) -> Result<Output, String> {
    let failed = |error: io::Error| error.to_string();
    let [mut stdout, mut stderr] = [tempfile::tempfile().map_err(failed)?, tempfile::tempfile().map_err(failed)?];
    command.stdin(Stdio::null());
    command.stdout(stdout.try_clone().map_err(failed)?).stderr(stderr.try_clone().map_err(failed)?);
    let mut child = command.spawn().map_err(failed)?;
    let until = Instant::now() + limit;
    let mut status = child.try_wait().map_err(failed)?;
    while status.is_none() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
        status = child.try_wait().map_err(failed)?;
    }
    if status.is_none() {
        let _ = Command::new("kill").args(["-QUIT", &child.id().to_string()]).status();
        thread::sleep(Duration::from_secs(2));
        let _ = child.kill();
        let _ = child.wait();
    }
    let read = |file: &mut fs::File| -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        file.seek(io::SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes)).map_err(failed)?;
        Ok(bytes)
    };
    let (stdout, stderr) = (read(&mut stdout)?, read(&mut stderr)?);
    match status {
        Some(status) => Ok(Output { status, stdout, stderr }),
        None => Err(format!(
            "not done after {} s: {command:?}\n{}{}",
            limit.as_secs(),
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        )),
    }
}

/// Ports of brokers, or of instances: FIRST, FIRST + 10 and FIRST + 20, and the two after each.
///
/// The last port of the block is bound as long as this value lives. The others are free while a broker is killed or not
/// started yet, and another test would take them for its own.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) first: u16,
    _reserved: TcpListener,
}

impl Ports {
    /// Below the range from which the system hands out ports to clients.
    pub(crate) fn reserve(brokers: u16) -> Ports {
        const BLOCK: u16 = 40;
        let blocks = 300;
        let from = u16::try_from(process::id() % u32::from(blocks)).unwrap();
        let bind = |port: u16| TcpListener::bind(("127.0.0.1", port)).ok();
        let mut all = (0..blocks).map(|block| 20_000 + (from + block) % blocks * BLOCK);
        let reserved = all.find_map(|first| {
            let reserved = bind(first + BLOCK - 1)?;
            let is_free = (0..brokers).all(|n| (0..3).all(|next| bind(first + 10 * n + next).is_some()));
            is_free.then_some(Ports { first, _reserved: reserved })
        });
        reserved.expect("no free block of ports between 20000 and 32000")
    }
}
