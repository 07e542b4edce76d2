//! The settings of the side connection, taken from those that librdkafka gets.

use std::fmt;
use std::time::Duration;

use super::sasl::{Mechanism, Secret, UnsecuredToken};
#[cfg(feature = "tls")]
use super::scram::Hash;
use super::tls;
use crate::error::{Error, Result};

const PORT: u16 = 9092;

/// A broker's host and port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Address {
    /// Reads `host`, `host:port`, `[::1]:port`, each with or without `PROTOCOL://` in front.
    fn parse(text: &str) -> Result<Address> {
        let wrong = || Error::invalid(format!("bootstrap.servers: {text} is not of the form host:port"));
        let bare = text.split_once("://").map_or(text, |(_, bare)| bare);
        let (host, port) = match bare.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            // More than one colon without brackets is an address of IPv6 without a port.
            None if bare.matches(':').count() > 1 => (bare, None),
            None => bare.split_once(':').map_or((bare, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(PORT), str::parse).map_err(|_| wrong())?;
        if host.is_empty() || port == 0 {
            return Err(wrong());
        }
        Ok(Address { host: host.to_owned(), port })
    }
}

/// Which kind of address a host name is looked up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

#[derive(Debug, Clone)]
pub(super) struct Security {
    pub(super) tls: Option<tls::TlsSettings>,
    pub(super) sasl: Option<Mechanism>,
}

/// What a side connection needs to know.
#[derive(Debug, Clone)]
pub(in crate::client::kafka) struct SideSettings {
    pub(super) bootstrap: Vec<Address>,
    pub(super) security: Security,
    pub(super) family: Family,
    /// How long one request may take.
    pub(super) request_timeout: Duration,
    /// How long a connection may take until it is open.
    pub(super) connect_timeout: Duration,
    pub(super) backoff_min: Duration,
    pub(super) backoff_max: Duration,
}

impl SideSettings {
    /// `setting` gives the value that librdkafka has for a setting, its default included.
    ///
    /// # Errors
    /// `Invalid`, naming a setting that only librdkafka can follow, and the remedy.
    pub(in crate::client::kafka) fn new(
        bootstrap: &str,
        setting: &dyn Fn(&str) -> Option<String>,
    ) -> Result<SideSettings> {
        let setting = |name: &str| setting(name).filter(|value| !value.is_empty());
        let millis = |name: &str, default: u64| {
            Duration::from_millis(setting(name).and_then(|value| value.parse().ok()).unwrap_or(default))
        };
        let servers = bootstrap.split(',').map(str::trim).filter(|server| !server.is_empty());
        let bootstrap = servers.map(Address::parse).collect::<Result<Vec<_>>>()?;
        if bootstrap.is_empty() {
            return Err(Error::invalid("bootstrap.servers names no broker"));
        }
        let protocol = setting("security.protocol").unwrap_or_else(|| "plaintext".to_owned()).to_lowercase();
        let (encrypted, authenticated) = match protocol.as_str() {
            "plaintext" => (false, false),
            "ssl" => (true, false),
            "sasl_plaintext" => (false, true),
            "sasl_ssl" => (true, true),
            _ => return Err(Error::invalid(format!("security.protocol {protocol} is not known"))),
        };
        let request_timeout = millis("socket.timeout.ms", 10_000).max(Duration::from_millis(10));
        let backoff_min = millis("reconnect.backoff.ms", 100).max(Duration::from_millis(1));
        Ok(SideSettings {
            bootstrap,
            security: Security {
                tls: if encrypted { Some(tls_settings(&setting)?) } else { None },
                sasl: if authenticated { Some(mechanism(&setting)?) } else { None },
            },
            family: match setting("broker.address.family").as_deref() {
                Some("v4") => Family::V4,
                Some("v6") => Family::V6,
                _ => Family::Any,
            },
            request_timeout,
            connect_timeout: millis("socket.connection.setup.timeout.ms", 30_000).min(request_timeout),
            backoff_min,
            backoff_max: millis("reconnect.backoff.max.ms", 1000).max(backoff_min),
        })
    }
}

/// What librdkafka can do with a setting and the side connection cannot.
fn only_librdkafka(setting: &str, remedy: &str) -> Error {
    Error::invalid(format!("the library's own connections to brokers cannot follow {setting}: {remedy}"))
}

fn mechanism(setting: &dyn Fn(&str) -> Option<String>) -> Result<Mechanism> {
    let needed = |name: &str| setting(name).ok_or_else(|| Error::invalid(format!("the setting {name} is missing")));
    let name = setting("sasl.mechanisms").unwrap_or_else(|| "GSSAPI".to_owned());
    match name.as_str() {
        "PLAIN" => {
            Ok(Mechanism::Plain { username: needed("sasl.username")?, password: Secret(needed("sasl.password")?) })
        }
        #[cfg(feature = "tls")]
        "SCRAM-SHA-256" | "SCRAM-SHA-512" => Ok(Mechanism::Scram {
            hash: if name == "SCRAM-SHA-256" { Hash::Sha256 } else { Hash::Sha512 },
            username: needed("sasl.username")?,
            password: Secret(needed("sasl.password")?),
        }),
        #[cfg(not(feature = "tls"))]
        "SCRAM-SHA-256" | "SCRAM-SHA-512" => {
            Err(Error::invalid(format!("sasl.mechanism {name} needs the feature tls of kstreams: add it")))
        }
        "OAUTHBEARER" => {
            if setting("sasl.oauthbearer.method").is_some_and(|method| method.eq_ignore_ascii_case("oidc")) {
                let remedy = "use another sasl.mechanism, or set GroupProtocol::Range";
                return Err(only_librdkafka("sasl.oauthbearer.method=oidc", remedy));
            }
            if setting("enable.sasl.oauthbearer.unsecure.jwt").as_deref() != Some("true") {
                let remedy = "set enable.sasl.oauthbearer.unsecure.jwt (for tests), or use another sasl.mechanism";
                return Err(only_librdkafka("sasl.mechanism OAUTHBEARER with tokens from elsewhere", remedy));
            }
            let token = UnsecuredToken::parse(&needed("sasl.oauthbearer.config")?)
                .map_err(|wrong| Error::invalid(format!("sasl.oauthbearer.config cannot be used: {wrong}")))?;
            Ok(Mechanism::OAuthBearer(token))
        }
        name => {
            let remedy = "use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, or set GroupProtocol::Range";
            Err(only_librdkafka(&format!("sasl.mechanism {name}"), remedy))
        }
    }
}

#[cfg(not(feature = "tls"))]
fn tls_settings(_setting: &dyn Fn(&str) -> Option<String>) -> Result<tls::TlsSettings> {
    Err(Error::invalid("security.protocol ssl and sasl_ssl need the feature tls of kstreams: add it"))
}

/// Settings that rustls has nothing like, each with what to do instead.
#[cfg(feature = "tls")]
const OPENSSL_ONLY: [(&str, &str); 9] = [
    ("ssl.keystore.location", "use ssl.certificate.location and ssl.key.location with PEM files"),
    ("ssl.key.password", "store the key without a password, readable by its user only"),
    ("ssl.crl.location", "leave it out, or set GroupProtocol::Range"),
    ("ssl.engine.location", "use ssl.key.location with a PEM file"),
    ("ssl.engine.id", "use ssl.key.location with a PEM file"),
    ("ssl.providers", "leave it out, or set GroupProtocol::Range"),
    ("ssl.cipher.suites", "leave it out: only TLS 1.2 and 1.3 with forward secrecy are spoken"),
    ("ssl.curves.list", "leave it out: only TLS 1.2 and 1.3 with forward secrecy are spoken"),
    ("ssl.sigalgs.list", "leave it out: only TLS 1.2 and 1.3 with forward secrecy are spoken"),
];

#[cfg(feature = "tls")]
fn tls_settings(setting: &dyn Fn(&str) -> Option<String>) -> Result<tls::TlsSettings> {
    use super::tls::{Pem, TlsSettings, Verification};

    if let Some((name, remedy)) = OPENSSL_ONLY.iter().find(|(name, _)| {
        // librdkafka has a default for the engine's id.
        setting(name).is_some_and(|value| (*name, value.as_str()) != ("ssl.engine.id", "dynamic"))
    }) {
        return Err(only_librdkafka(name, remedy));
    }
    let pem = |file: &'static str, text: &'static str| match (setting(text), setting(file)) {
        (Some(value), _) => Some(Pem::Text(text, value)),
        // librdkafka's word for what the system trusts.
        (None, Some(value)) if value == "probe" => None,
        (None, value) => value.map(|value| Pem::File(file, value)),
    };
    let authorities = pem("ssl.ca.location", "ssl.ca.pem");
    let chain = pem("ssl.certificate.location", "ssl.certificate.pem");
    let key = pem("ssl.key.location", "ssl.key.pem");
    let client = match (&chain, &key) {
        (Some(chain), Some(key)) => Some((chain, key)),
        (None, None) => None,
        _ => return Err(Error::invalid("ssl.certificate.location and ssl.key.location go together: set both")),
    };
    let verification = if setting("enable.ssl.certificate.verification").as_deref() == Some("false") {
        Verification::Nothing
    } else if setting("ssl.endpoint.identification.algorithm").as_deref() == Some("none") {
        Verification::Issuer
    } else {
        Verification::IssuerAndName
    };
    TlsSettings::new(authorities.as_ref(), client, verification)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn settings(bootstrap: &str, pairs: &[(&str, &str)]) -> Result<SideSettings> {
        SideSettings::new(bootstrap, &|name| {
            pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn refused(pairs: &[(&str, &str)]) -> String {
        let error = settings("b:1", pairs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.report()
    }

    #[test]
    fn bootstrap_servers_are_read_in_every_form() {
        let settings = settings("a:1, SSL://b ,[::1]:2,fe80::1,", &[]).unwrap();
        let shown: Vec<String> = settings.bootstrap.iter().map(Address::to_string).collect();
        assert_eq!(shown, ["a:1", "b:9092", "[::1]:2", "[fe80::1]:9092"]);
        for wrong in ["", ",", "a:x", ":1", "a:0", "a:70000"] {
            assert!(super::tests::settings(wrong, &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn plain_takes_name_and_password_and_prints_no_password() {
        let pairs = [
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanisms", "PLAIN"),
            ("sasl.username", "alice"),
            ("sasl.password", "hush"),
        ];
        let settings = settings("b:1", &pairs).unwrap();
        assert_eq!(settings.security.sasl.as_ref().map(Mechanism::name), Some("PLAIN"));
        assert!(!format!("{settings:?}").contains("hush"));
        assert!(refused(&pairs[..3]).contains("sasl.password"));
    }

    #[test]
    fn what_only_librdkafka_speaks_is_named_with_the_remedy() {
        let sasl = ("security.protocol", "sasl_plaintext");
        assert!(refused(&[sasl]).contains("sasl.mechanism GSSAPI"));
        let bearer = ("sasl.mechanisms", "OAUTHBEARER");
        assert!(refused(&[sasl, bearer, ("sasl.oauthbearer.method", "oidc")]).contains("GroupProtocol::Range"));
        assert!(refused(&[sasl, bearer]).contains("enable.sasl.oauthbearer.unsecure.jwt"));
    }

    #[test]
    fn an_unsecured_token_is_made_of_its_setting() {
        let pairs = [
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanisms", "OAUTHBEARER"),
            ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
            ("sasl.oauthbearer.config", "principal=admin"),
        ];
        let settings = settings("b:1", &pairs).unwrap();
        assert_eq!(settings.security.sasl.as_ref().map(Mechanism::name), Some("OAUTHBEARER"));
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn without_the_feature_tls_it_is_named() {
        assert!(refused(&[("security.protocol", "ssl")]).contains("feature tls"));
    }

    #[cfg(feature = "tls")]
    #[test]
    fn a_tls_setting_that_cannot_be_followed_is_named() {
        let ssl = ("security.protocol", "ssl");
        assert!(refused(&[ssl, ("ssl.keystore.location", "x.p12")]).contains("ssl.certificate.location"));
        assert!(refused(&[ssl, ("ssl.ca.location", "missing.pem")]).contains("could not read missing.pem"));
        assert!(refused(&[ssl, ("ssl.ca.pem", "nonsense")]).contains("ssl.ca.pem holds no certificates"));
        assert!(refused(&[ssl, ("ssl.certificate.pem", "x")]).contains("go together"));
    }
}
