//! The key under which a request is repeated.

use std::fmt;

use crate::error::{Error, Result};

/// Names a request, however often it is sent: what a caller puts into the header `Idempotency-Key`. 1 to 128 letters, digits,
/// `.`, `_` and `-`.
///
/// The id of what a request makes is [derived](IdempotencyKey::id_for) from it, so that a request that is repeated, on this
/// instance or another, is written under the same record key, comes into the same task, and is found there: a store that is
/// read and written with exactly once decides, and no second thing is made. An id names its request exactly, without a hash:
/// no caller can hit upon that of another one.
///
/// ```
/// use kstreams::IdempotencyKey;
///
/// let key: IdempotencyKey = "cart-17".parse()?;
/// assert_eq!(key.id_for("ada"), "ada:cart-17");
/// assert!("".parse::<IdempotencyKey>().is_err() && "a/b".parse::<IdempotencyKey>().is_err());
/// # Ok::<(), kstreams::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(String);

const LENGTH_MAX: usize = 128;

impl IdempotencyKey {
    /// One that nobody has used: for a caller that gives none, and so cannot repeat its request.
    pub fn random() -> IdempotencyKey {
        IdempotencyKey(uuid::Uuid::new_v4().to_string())
    }

    /// The key itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of what the request makes: `SCOPE:KEY`, the same each time, and of no other request. The scope is who sends the
    /// request; no two callers meet however they choose their keys.
    pub fn id_for(&self, scope: &str) -> String {
        // The key has no colon: the last one is ours, so scope and key can be told apart.
        format!("{scope}:{}", self.0)
    }
}

impl std::str::FromStr for IdempotencyKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<IdempotencyKey> {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if text.is_empty() || text.len() > LENGTH_MAX || !text.chars().all(is_fine) {
            return Err(Error::invalid(format!(
                "could not take an idempotency key of {} bytes: it has 1 to {LENGTH_MAX} letters, digits, '.', '_' and '-'",
                text.len()
            )));
        }
        Ok(IdempotencyKey(text.to_owned()))
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
