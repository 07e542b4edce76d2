//! What is said on a new connection before the first request: which versions, and who we are. Without any I/O.

use std::time::Duration;

use super::Failure;
use super::code::Code;
use super::requests::{self, Api};
use super::responses::{self, Versions};
use super::sasl::{Exchange, Mechanism};

/// Messages of an exchange; SCRAM takes two, and no broker makes us go on for ever.
const MESSAGES_MAX: usize = 8;

/// A handshake under way: a request is with the broker.
#[derive(Debug)]
pub(super) struct Handshake {
    mechanism: Option<Mechanism>,
    versions: Versions,
    step: Step,
    messages: usize,
}

#[derive(Debug)]
enum Step {
    Versions,
    Mechanism,
    Tokens(Exchange),
}

pub(super) enum Next {
    Ask(Api, Vec<u8>),
    /// How long the broker heeds the credentials, if it limits that.
    Done(Versions, Option<Duration>),
}

impl Handshake {
    /// The handshake and its first request.
    pub(super) fn begin(mechanism: Option<Mechanism>) -> (Handshake, Api, Vec<u8>) {
        let handshake = Handshake { mechanism, versions: Versions::before_asking(), step: Step::Versions, messages: 0 };
        (handshake, Api::ApiVersions, requests::api_versions())
    }

    pub(super) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// What follows from the body of a response.
    pub(super) fn on(&mut self, body: &[u8]) -> Result<Next, Failure> {
        match &mut self.step {
            Step::Versions => {
                let (error, versions) = responses::api_versions(body).map_err(|_| no_kafka())?;
                match error {
                    Code::NONE => {}
                    Code::UNSUPPORTED_VERSION => return Err(too_old("ApiVersions 3")),
                    error => return Err(Failure::Lost(format!("could not ask for its versions: {error}"))),
                }
                self.versions = versions;
                let Some(mechanism) = &self.mechanism else { return Ok(self.done(0)) };
                self.step = Step::Mechanism;
                Ok(Next::Ask(Api::SaslHandshake, requests::sasl_handshake(mechanism.name())))
            }
            Step::Mechanism => {
                let (error, offered) = responses::sasl_handshake(body).map_err(Failure::malformed)?;
                let Some(mechanism) = &self.mechanism else { return Ok(self.done(0)) };
                if error != Code::NONE {
                    let (name, offered) = (mechanism.name(), offered.join(", "));
                    return Err(Failure::Denied(match error.denial() {
                        Some(_) if !offered.is_empty() => {
                            format!("it does not take sasl.mechanism {name}; it offers {offered}")
                        }
                        Some(text) => text.to_owned(),
                        None => format!("it does not take sasl.mechanism {name}: {error}"),
                    }));
                }
                let (exchange, first) = mechanism.begin();
                self.step = Step::Tokens(exchange);
                Ok(Next::Ask(Api::SaslAuthenticate, requests::sasl_authenticate(&first)))
            }
            Step::Tokens(exchange) => {
                let said = responses::sasl_authenticate(body).map_err(Failure::malformed)?;
                if said.error != Code::NONE {
                    let remedy = said.error.denial().unwrap_or("it refused the credentials");
                    let reason = said.message.map(|message| format!(" ({message})")).unwrap_or_default();
                    return Err(Failure::Denied(format!("{remedy}{reason}")));
                }
                self.messages += 1;
                match exchange.answer(&said.token)? {
                    _ if self.messages > MESSAGES_MAX => Err(Failure::Lost("its SASL exchange has no end".to_owned())),
                    Some(next) => Ok(Next::Ask(Api::SaslAuthenticate, requests::sasl_authenticate(&next))),
                    None => Ok(self.done(said.lifetime_ms)),
                }
            }
        }
    }

    fn done(&self, lifetime_ms: i64) -> Next {
        let lifetime = u64::try_from(lifetime_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
        Next::Done(self.versions.clone(), lifetime)
    }
}

/// What a request in a version that the broker does not know comes to.
pub(super) fn too_old(what: &str) -> Failure {
    Failure::Denied(format!("the broker does not understand {what}: it is older than Kafka 2.5, or not a full Kafka"))
}

fn no_kafka() -> Failure {
    Failure::Lost("what answers there does not speak Kafka's protocol".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::sasl::Secret;
    use super::*;

    use proptest::prelude::*;

    const VERSIONS: &[u8] = b"\0\0\x02\0\x0b\0\0\0\x09\0\0\0\0\0\0";

    fn alice() -> Mechanism {
        Mechanism::Plain { username: "alice".into(), password: Secret("secret".into()) }
    }

    #[test]
    fn without_credentials_the_versions_are_all() {
        let (mut handshake, api, _) = Handshake::begin(None);
        assert_eq!(api, Api::ApiVersions);
        let Ok(Next::Done(versions, None)) = handshake.on(VERSIONS) else { panic!("not done") };
        assert_eq!(versions.of(Api::JoinGroup), Some(9));
    }

    #[test]
    fn credentials_are_given_after_the_mechanism_is_agreed_upon() {
        let (mut handshake, ..) = Handshake::begin(Some(alice()));
        let Ok(Next::Ask(Api::SaslHandshake, body)) = handshake.on(VERSIONS) else { panic!("no mechanism") };
        assert_eq!(body, b"\0\x05PLAIN");
        let Ok(Next::Ask(Api::SaslAuthenticate, body)) = handshake.on(b"\0\0\0\0\0\x01\0\x05PLAIN") else {
            panic!("no credentials")
        };
        assert_eq!(body, b"\x0e\0alice\0secret\0");
        let Ok(Next::Done(_, lifetime)) = handshake.on(b"\0\0\0\x01\0\0\0\0\0\0\x03\xe8\0") else { panic!("not done") };
        assert_eq!(lifetime, Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_mechanism_that_is_not_offered_is_told_with_those_that_are() {
        let (mut handshake, ..) = Handshake::begin(Some(alice()));
        handshake.on(VERSIONS).ok();
        let Err(Failure::Denied(text)) = handshake.on(b"\0\x21\0\0\0\x01\0\x06GSSAPI") else { panic!("taken") };
        assert!(text.contains("PLAIN") && text.contains("GSSAPI"), "{text}");
    }

    #[test]
    fn refused_credentials_are_denied_with_the_brokers_words_and_not_ours() {
        let (mut handshake, ..) = Handshake::begin(Some(alice()));
        handshake.on(VERSIONS).ok();
        handshake.on(b"\0\0\0\0\0\0").ok();
        let Err(Failure::Denied(text)) = handshake.on(b"\0\x3a\x05nope\x01\0\0\0\0\0\0\0\0\0") else { panic!("taken") };
        assert!(text.contains("nope") && text.contains("sasl.password") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn something_else_than_kafka_is_told() {
        let (mut handshake, ..) = Handshake::begin(None);
        assert!(matches!(handshake.on(b"HTTP/1.1 400"), Err(Failure::Lost(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_end_the_process(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 3)) {
            for good in [&[][..], &[VERSIONS], &[VERSIONS, b"\0\0\0\0\0\0"]] {
                let (mut handshake, ..) = Handshake::begin(Some(alice()));
                for body in good.iter().copied().chain(bodies.iter().map(Vec::as_slice)) {
                    let _ = handshake.on(body);
                }
            }
        }
    }
}
