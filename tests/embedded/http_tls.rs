//! State over HTTP with TLS: from clients, and between instances.

use kstreams::{I64, Position, QueryClient, QueryServer, Utf8};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::application::PATIENCE;
use crate::http_site::{Site, raw, runtime, serve_all, settings, wait_until_settled};
use crate::queries::{cluster, write};

/// Of 127.0.0.1, by itself, for a hundred years; the key guards nothing but this test.
const PEM: &[u8] = include_bytes!("../fixtures/query-https.pem");

fn client() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(PEM).unwrap()).unwrap();
    ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

fn with_tls(server: QueryServer) -> QueryServer {
    let (own, key) = (CertificateDer::from_pem_slice(PEM).unwrap(), PrivateKeyDer::from_pem_slice(PEM).unwrap());
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![own], key).unwrap();
    server.with_tls(config, client())
}

#[test]
fn instances_forward_over_tls_and_who_does_not_speak_it_is_not_answered() {
    let (runtime, cluster) = (runtime(), cluster());
    let site = || Site::start_with(&runtime, settings(&cluster), |streams| with_tls(serve_all(streams)));
    let sites = [site(), site()];
    wait_until_settled(&[&sites[0], &sites[1]]);
    let mut written = Position::new();
    let names: Vec<String> = (0..20).map(|number| format!("user-{number:02}")).collect();
    for name in &names {
        written = written.merge(&write(&cluster, "clicks", name, "", 0));
    }
    for site in &sites {
        let trusting = QueryClient::new([&site.address]).unwrap().with_timeout(PATIENCE).with_tls(client());
        let counts = trusting.store("counts", Utf8, I64).with_position(&written);
        let rows = runtime.block_on(counts.range(None, None).unwrap().collect()).unwrap();
        assert_eq!(rows, names.iter().map(|name| (name.clone(), 1)).collect::<Vec<_>>());
        for name in &names {
            assert_eq!(runtime.block_on(counts.get(name)).unwrap().value, Some(1));
        }
        assert_eq!(raw(&site.address, b"GET /v1/live HTTP/1.1\r\nhost: a\r\n\r\n").status, 0);
    }
}
