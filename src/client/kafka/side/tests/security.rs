//! Credentials and TLS against played brokers.

use super::*;
use crate::membership::classic::protocol::{GroupError, RequestKind};

const PLAIN: [(&str, &str); 4] = [
    ("security.protocol", "sasl_plaintext"),
    ("sasl.mechanisms", "PLAIN"),
    ("sasl.username", "alice"),
    ("sasl.password", "hush"),
];

#[test]
fn refused_credentials_are_told_at_once_and_not_printed() {
    let broker = Broker::play(|asked| match asked.api {
        Api::SaslHandshake => Some(Reply::Body(b"\0\0\0\0\0\0".to_vec())),
        Api::SaslAuthenticate => Some(Reply::Body(b"\0\x3a\0\x01\0\0\0\0\0\0\0\0\0".to_vec())),
        _ => None,
    });
    let mut member = coordinator(settings(&[broker.port], &PLAIN));
    let GroupAnswer::Refused { request: RequestKind::Heartbeat, error: GroupError::Denied(text) } =
        ask(&mut member, heartbeat())
    else {
        panic!("not denied")
    };
    assert!(text.contains("sasl.password") && !text.contains("hush"), "{text}");
    assert!(!format!("{member:?}").contains("hush"));
}

#[test]
fn credentials_on_every_connection_come_before_its_first_request() {
    let broker = Broker::play(|asked| match asked.api {
        Api::SaslHandshake => Some(Reply::Body(b"\0\0\0\0\0\0".to_vec())),
        Api::SaslAuthenticate => {
            assert_eq!(asked.body, b"\x0c\0alice\0hush\0");
            Some(Reply::Body(b"\0\0\0\x01\0\0\0\0\0\0\0\0\0".to_vec()))
        }
        _ => None,
    });
    let mut member = coordinator(settings(&[broker.port], &PLAIN));
    assert_eq!(ask(&mut member, heartbeat()), GroupAnswer::Alive);
    assert!(matches!(ask(&mut member, join()), GroupAnswer::Joined { .. }));
    assert_eq!((broker.asked(Api::SaslAuthenticate), broker.asked(Api::ApiVersions)), (2, 2));
}

#[cfg(feature = "tls")]
mod tls {
    use std::net::TcpStream;

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

    use super::*;
    use crate::error::ErrorKind;
    use crate::membership::classic::protocol::GroupOffsets as _;

    const CA: &str = include_str!("pem/ca.pem");
    const SERVER: [&str; 2] = [include_str!("pem/server.pem"), include_str!("pem/server.key.pem")];
    const ELSEWHERE: [&str; 2] = [include_str!("pem/elsewhere.pem"), include_str!("pem/elsewhere.key.pem")];

    enum Clients {
        Anybody,
        WithCertificate,
    }

    fn broker([chain, key]: [&str; 2], clients: &Clients) -> Broker {
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            Clients::Anybody => builder.with_no_client_auth(),
            Clients::WithCertificate => {
                let mut roots = RootCertStore::empty();
                roots.add(certificate(CA)).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = Arc::new(builder.with_single_cert(vec![certificate(chain)], key).unwrap());
        let wrap = move |socket: TcpStream| {
            Box::new(StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), socket))
        };
        Broker::play_over(wrap, |asked| (asked.api == Api::SyncGroup).then(long_assignment))
    }

    fn answer(broker: &Broker, pairs: &[(&str, &str)]) -> GroupAnswer {
        let pairs = [&[("security.protocol", "ssl")], pairs].concat();
        ask(&mut coordinator(settings(&[broker.port], &pairs)), heartbeat())
    }

    #[track_caller]
    fn denied(broker: &Broker, pairs: &[(&str, &str)], remedy: &str) {
        let GroupAnswer::Refused { error: GroupError::Denied(text), .. } = answer(broker, pairs) else {
            panic!("not denied")
        };
        assert!(text.contains(remedy), "{text}");
    }

    const TRUSTED: (&str, &str) = ("ssl.ca.pem", CA);

    #[test]
    fn a_broker_with_a_trusted_certificate_is_spoken_to() {
        let broker = broker(SERVER, &Clients::Anybody);
        assert_eq!(answer(&broker, &[TRUSTED]), GroupAnswer::Alive);
        let settings = settings(&[broker.port], &[("security.protocol", "ssl"), TRUSTED]);
        SideOffsets::new(settings.clone(), "group", "client").unwrap().fence(&["t".to_owned()], &[]).unwrap();
        assert_eq!(ask(&mut coordinator(settings), sync()), long_answer());
    }

    #[test]
    fn a_certificate_of_an_unknown_authority_is_refused_with_the_remedy() {
        denied(&broker(SERVER, &Clients::Anybody), &[("ssl.ca.pem", ELSEWHERE[0])], "ssl.ca.location");
    }

    #[test]
    fn a_certificate_for_another_name_is_refused_unless_names_do_not_matter() {
        let broker = broker(ELSEWHERE, &Clients::Anybody);
        denied(&broker, &[TRUSTED], "ssl.endpoint.identification.algorithm=none");
        let any_name = ("ssl.endpoint.identification.algorithm", "none");
        assert_eq!(answer(&broker, &[TRUSTED, any_name]), GroupAnswer::Alive);
        denied(&broker, &[("ssl.ca.pem", SERVER[0]), any_name], "ssl.ca.location");
        assert_eq!(answer(&broker, &[("enable.ssl.certificate.verification", "false")]), GroupAnswer::Alive);
    }

    #[test]
    fn a_client_shows_its_certificate_to_who_asks_for_it() {
        let broker = broker(SERVER, &Clients::WithCertificate);
        let own = [("ssl.certificate.pem", SERVER[0]), ("ssl.key.pem", SERVER[1])];
        assert_eq!(answer(&broker, &[&[TRUSTED][..], &own].concat()), GroupAnswer::Alive);
        denied(&broker, &[TRUSTED], "ssl.certificate.location");
    }

    #[test]
    fn a_broker_without_tls_is_told_from_one_with_a_wrong_certificate() {
        let broker = Broker::play(|asked| panic!("{} came through", asked.api.name()));
        let pairs = [("security.protocol", "ssl"), TRUSTED];
        let patience = Duration::from_millis(50);
        let settings = settings(&[broker.port], &pairs);
        let mut offsets = SideOffsets::with_patience(settings, "group", "client", patience).unwrap();
        let error = offsets.fence(&["t".to_owned()], &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    }
}
