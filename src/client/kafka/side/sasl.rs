//! What proves to a broker who this client is: PLAIN, SCRAM and OAUTHBEARER, without any I/O.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
#[cfg(feature = "tls")]
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Failure;
#[cfg(feature = "tls")]
use super::scram::{Hash, Scram};

/// A password, a token or a key: never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(pub(super) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// How a client proves who it is.
#[derive(Debug, Clone)]
pub(super) enum Mechanism {
    Plain {
        username: String,
        password: Secret,
    },
    #[cfg(feature = "tls")]
    Scram {
        hash: Hash,
        username: String,
        password: Secret,
    },
    OAuthBearer(UnsecuredToken),
}

impl Mechanism {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Mechanism::Plain { .. } => "PLAIN",
            #[cfg(feature = "tls")]
            Mechanism::Scram { hash, .. } => hash.mechanism(),
            Mechanism::OAuthBearer(_) => "OAUTHBEARER",
        }
    }

    /// The exchange and its first message.
    pub(super) fn begin(&self) -> (Exchange, Vec<u8>) {
        match self {
            Mechanism::Plain { username, password } => {
                (Exchange::Plain, format!("\0{username}\0{}", password.0).into_bytes())
            }
            #[cfg(feature = "tls")]
            Mechanism::Scram { hash, username, password } => {
                // 244 random bits.
                let nonce = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
                let scram = Scram::new(*hash, username, &password.0, &nonce);
                let first = scram.first();
                (Exchange::Scram(Box::new(scram)), first)
            }
            Mechanism::OAuthBearer(token) => (Exchange::OAuthBearer, token.message(seconds_now())),
        }
    }
}

/// An exchange under way.
#[derive(Debug)]
pub(super) enum Exchange {
    Plain,
    #[cfg(feature = "tls")]
    Scram(Box<Scram>),
    OAuthBearer,
}

impl Exchange {
    /// The next message; none when the broker has proved and said enough.
    pub(super) fn answer(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        match self {
            Exchange::Plain => Ok(None),
            #[cfg(feature = "tls")]
            Exchange::Scram(scram) => scram.answer(message),
            Exchange::OAuthBearer if message.is_empty() => Ok(None),
            // Why the token is refused. RFC 7628 wants one more message before the refusal itself.
            Exchange::OAuthBearer => Ok(Some(vec![1])),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a token tells from when to when it is valid")]
fn seconds_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A token that nobody has signed (`enable.sasl.oauthbearer.unsecure.jwt`), for tests, as librdkafka makes it of
/// `sasl.oauthbearer.config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnsecuredToken {
    principal_claim: String,
    principal: String,
    scope_claim: String,
    scope: Vec<String>,
    life: Duration,
    extensions: Vec<(String, String)>,
}

impl UnsecuredToken {
    /// Reads `principal=admin scope=role1,role2 lifeSeconds=600 extension_traceId=123`.
    pub(super) fn parse(config: &str) -> Result<UnsecuredToken, String> {
        let mut token = UnsecuredToken {
            principal_claim: "sub".to_owned(),
            principal: String::new(),
            scope_claim: "scope".to_owned(),
            scope: Vec::new(),
            life: Duration::from_secs(3600),
            extensions: Vec::new(),
        };
        for pair in config.split_whitespace() {
            let Some((name, value)) = pair.split_once('=') else {
                return Err("it is made of name=value, with blanks between".to_owned());
            };
            match name {
                "principal" => token.principal = value.to_owned(),
                "principalClaimName" => token.principal_claim = value.to_owned(),
                "scope" => token.scope = value.split(',').map(str::to_owned).collect(),
                "scopeClaimName" => token.scope_claim = value.to_owned(),
                "lifeSeconds" => {
                    let seconds = value.parse().map_err(|_| "lifeSeconds is no number".to_owned())?;
                    token.life = Duration::from_secs(seconds);
                }
                _ => match name.strip_prefix("extension_") {
                    Some(extension) => token.extensions.push((extension.to_owned(), value.to_owned())),
                    None => return Err(format!("{name} is not known")),
                },
            }
        }
        if token.principal.is_empty() {
            return Err("it has no principal=".to_owned());
        }
        Ok(token)
    }

    fn message(&self, now_seconds: u64) -> Vec<u8> {
        let mut claims = serde_json::Map::new();
        claims.insert(self.principal_claim.clone(), self.principal.clone().into());
        claims.insert("iat".to_owned(), now_seconds.into());
        claims.insert("exp".to_owned(), now_seconds.saturating_add(self.life.as_secs()).into());
        if !self.scope.is_empty() {
            claims.insert(self.scope_claim.clone(), self.scope.clone().into());
        }
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let claims = URL_SAFE_NO_PAD.encode(serde_json::Value::Object(claims).to_string());
        let mut message = format!("n,,\u{1}auth=Bearer {header}.{claims}.\u{1}");
        for (name, value) in &self.extensions {
            message.push_str(&format!("{name}={value}\u{1}"));
        }
        message.push('\u{1}');
        message.into_bytes()
    }
}

/// Base64 as SCRAM has it.
#[cfg(feature = "tls")]
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(feature = "tls")]
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_sends_name_and_password_between_nul_bytes() {
        let plain = Mechanism::Plain { username: "alice".into(), password: Secret("secret".into()) };
        let (mut exchange, first) = plain.begin();
        assert_eq!(first, b"\0alice\0secret");
        assert!(matches!(exchange.answer(b""), Ok(None)));
        assert!(!format!("{plain:?}").contains("secret"));
    }

    #[test]
    fn an_unsecured_token_tells_principal_scope_and_time() {
        let token = UnsecuredToken::parse("principal=admin scope=a,b lifeSeconds=60 extension_trace=1").unwrap();
        let message = String::from_utf8(token.message(1000)).unwrap();
        let parts: Vec<&str> = message.split('\u{1}').collect();
        assert_eq!((parts[0], parts[2]), ("n,,", "trace=1"));
        let jwt: Vec<&str> = parts[1].strip_prefix("auth=Bearer ").unwrap().split('.').collect();
        let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(jwt[1]).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_str(&claims).unwrap();
        assert_eq!(claims, serde_json::json!({ "sub": "admin", "scope": ["a", "b"], "iat": 1000, "exp": 1060 }));
        assert_eq!(jwt[2], "");
    }

    #[test]
    fn a_token_without_a_principal_is_refused() {
        assert!(UnsecuredToken::parse("scope=a").unwrap_err().contains("principal"));
        assert!(UnsecuredToken::parse("principal=a colour=red").unwrap_err().contains("colour"));
    }
}
