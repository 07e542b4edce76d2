//! SCRAM (RFC 5802, 7677): the password stays here, and the broker proves that it knows it too.
//!
//! Needs a hash and nothing else of the feature `tls`; librdkafka, whose other connections have the same credentials, has
//! SCRAM with that feature only.

use std::fmt;
use std::num::NonZeroU32;

use ring::{digest, hmac, pbkdf2};

use super::Failure;
use super::sasl::{base64, from_base64};

/// Kafka refuses to store fewer.
const ITERATIONS_MIN: u32 = 4096;

/// A second of work. A broker that wants more is none of ours.
const ITERATIONS_MAX: u32 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    pub(super) fn mechanism(self) -> &'static str {
        match self {
            Hash::Sha256 => "SCRAM-SHA-256",
            Hash::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha512 => &digest::SHA512,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Hash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

/// An exchange under way.
pub(super) struct Scram {
    hash: Hash,
    password: String,
    nonce: String,
    /// `n=user,r=nonce`, part of what is signed.
    first_bare: String,
    /// What the broker's last message must prove.
    awaited: Option<(hmac::Key, String)>,
}

impl fmt::Debug for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scram").field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl Scram {
    pub(super) fn new(hash: Hash, username: &str, password: &str, nonce: &str) -> Scram {
        let username = username.replace('=', "=3D").replace(',', "=2C");
        Scram {
            hash,
            password: password.to_owned(),
            nonce: nonce.to_owned(),
            first_bare: format!("n={username},r={nonce}"),
            awaited: None,
        }
    }

    /// The client's first message.
    pub(super) fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.first_bare).into_bytes()
    }

    /// The next message; none when the broker has proved itself.
    pub(super) fn answer(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let message = std::str::from_utf8(message).map_err(|_| wrong("its message is not UTF-8"))?;
        match self.awaited.take() {
            None => self.prove(message).map(Some),
            Some((key, signed)) => {
                let signature = message.split(',').find_map(|field| field.strip_prefix("v=")).and_then(from_base64);
                let signature = signature.ok_or_else(|| wrong("its last message has no signature"))?;
                hmac::verify(&key, signed.as_bytes(), &signature).map_err(|_| {
                    wrong("it does not know the password either: this is not the broker it claims to be")
                })?;
                Ok(None)
            }
        }
    }

    /// The answer to `r=nonce,s=salt,i=iterations`.
    fn prove(&mut self, server_first: &str) -> Result<Vec<u8>, Failure> {
        let field = |name: &str| server_first.split(',').find_map(|field| field.strip_prefix(name));
        let nonce = field("r=").filter(|nonce| nonce.starts_with(&self.nonce) && nonce.len() > self.nonce.len());
        let nonce = nonce.ok_or_else(|| wrong("its nonce does not continue ours"))?;
        let salt = field("s=").and_then(from_base64).ok_or_else(|| wrong("its message has no salt"))?;
        let iterations: u32 = field("i=").and_then(|count| count.parse().ok()).unwrap_or(0);
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(wrong("its number of iterations is out of bounds"));
        }
        let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);

        let mut salted = vec![0; self.hash.digest().output_len()];
        pbkdf2::derive(self.hash.pbkdf2(), iterations, &salt, self.password.as_bytes(), &mut salted);
        let salted = hmac::Key::new(self.hash.hmac(), &salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        let stored_key = digest::digest(self.hash.digest(), client_key.as_ref());
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{server_first},{without_proof}", self.first_bare);
        let signature = hmac::sign(&hmac::Key::new(self.hash.hmac(), stored_key.as_ref()), signed.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server_key = hmac::sign(&salted, b"Server Key");
        self.awaited = Some((hmac::Key::new(self.hash.hmac(), server_key.as_ref()), signed));
        Ok(format!("{without_proof},p={}", base64(&proof)).into_bytes())
    }
}

fn wrong(why: &str) -> Failure {
    Failure::Denied(format!("the broker's part of SCRAM is wrong: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    const SERVER_FIRST: &[u8] =
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn pencil(hash: Hash) -> Scram {
        Scram::new(hash, "user", "pencil", "rOprNGfwEbeRWgbNEkqO")
    }

    fn next(scram: &mut Scram, message: &[u8]) -> Option<String> {
        scram.answer(message).unwrap().map(|message| String::from_utf8(message).unwrap())
    }

    #[test]
    fn the_exchange_of_rfc_7677() {
        let mut scram = pencil(Hash::Sha256);
        assert_eq!(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let last = next(&mut scram, SERVER_FIRST);
        let proof = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(last.as_deref(), Some(proof));
        assert_eq!(next(&mut scram, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), None);
    }

    /// The same exchange with the longer hash, by Python's hashlib.
    #[test]
    fn the_same_exchange_with_the_longer_hash() {
        let mut scram = pencil(Hash::Sha512);
        let last = next(&mut scram, SERVER_FIRST).unwrap();
        assert!(
            last.ends_with(
                "p=gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ=="
            ),
            "{last}"
        );
        assert_eq!(
            next(
                &mut scram,
                b"v=ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw=="
            ),
            None
        );
    }

    #[test]
    fn a_broker_that_does_not_know_the_password_is_found_out() {
        let mut scram = pencil(Hash::Sha256);
        scram.answer(SERVER_FIRST).unwrap();
        let signature = format!("v={}", base64(&[7; 32]));
        assert!(matches!(scram.answer(signature.as_bytes()), Err(Failure::Denied(_))));
    }

    #[test]
    fn a_message_out_of_bounds_is_refused() {
        let nonce = "r=rOprNGfwEbeRWgbNEkqO%hv";
        for message in [
            "r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".to_owned(),
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".to_owned(),
            format!("{nonce},s=!,i=4096"),
            format!("{nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1"),
            format!("{nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000"),
            "e=unknown-user".to_owned(),
        ] {
            let refused = pencil(Hash::Sha256).answer(message.as_bytes());
            assert!(matches!(refused, Err(Failure::Denied(_))), "{message}");
        }
    }

    #[test]
    fn signs_with_a_meaning_are_escaped_in_a_name() {
        assert_eq!(Scram::new(Hash::Sha256, "a=b,c", "", "n").first(), b"n,,n=a=3Db=2Cc,r=n");
    }

    proptest! {
        #[test]
        fn no_message_ends_the_process(first in "[rsive=,A-Za-z0-9+/]{0,60}", last in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut scram = pencil(Hash::Sha256);
            let _ = scram.answer(first.as_bytes());
            let mut scram = pencil(Hash::Sha256);
            let _ = scram.answer(SERVER_FIRST);
            let _ = scram.answer(&last);
        }
    }
}
