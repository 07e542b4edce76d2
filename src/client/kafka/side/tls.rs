//! TLS by rustls, with the settings that librdkafka takes for OpenSSL.

use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};

use super::Failure;
use crate::error::{Error, Result};

/// How far a broker's certificate is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verification {
    /// Who issued it, and for which name.
    IssuerAndName,
    /// `ssl.endpoint.identification.algorithm=none`.
    Issuer,
    /// `enable.ssl.certificate.verification=false`.
    Nothing,
}

/// Where what a setting says is found.
#[derive(Debug)]
pub(super) enum Pem {
    /// The setting, and the file or folder it names.
    File(&'static str, String),
    Text(&'static str, String),
}

impl Pem {
    fn setting(&self) -> &'static str {
        match self {
            Pem::File(setting, _) | Pem::Text(setting, _) => setting,
        }
    }

    /// The text, or those of all files in a folder.
    fn read(&self) -> Result<Vec<u8>> {
        let failed = |error: std::io::Error, path: &str| {
            Error::invalid(format!("could not read {path}, which {} names", self.setting())).with_source(error)
        };
        match self {
            Pem::Text(_, text) => Ok(text.clone().into_bytes()),
            Pem::File(_, path) if Path::new(path).is_dir() => {
                let mut all = Vec::new();
                for entry in std::fs::read_dir(path).map_err(|error| failed(error, path))? {
                    let entry = entry.map_err(|error| failed(error, path))?.path();
                    if entry.is_file() {
                        all.extend(std::fs::read(&entry).map_err(|error| failed(error, path))?);
                        all.push(b'\n');
                    }
                }
                Ok(all)
            }
            Pem::File(_, path) => std::fs::read(path).map_err(|error| failed(error, path)),
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>> {
        let wrong = || format!("{} holds no certificates in PEM", self.setting());
        let found = CertificateDer::pem_slice_iter(&self.read()?)
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|error| Error::invalid(wrong()).with_source(error))?;
        if found.is_empty() { Err(Error::invalid(wrong())) } else { Ok(found) }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>> {
        let text = self.read()?;
        if text.windows(9).any(|part| part == b"ENCRYPTED") {
            let setting = self.setting();
            return Err(Error::invalid(format!(
                "{setting} holds an encrypted key, which the library's own connections cannot open (ssl.key.password): \
                 store the key without a password, readable by its user only"
            )));
        }
        let wrong = || format!("{} holds no private key in PEM", self.setting());
        PrivateKeyDer::from_pem_slice(&text).map_err(|error| Error::invalid(wrong()).with_source(error))
    }
}

#[derive(Debug, Clone)]
pub(super) struct TlsSettings(Arc<ClientConfig>);

impl TlsSettings {
    /// # Errors
    /// `Invalid`, naming the setting.
    pub(super) fn new(
        authorities: Option<&Pem>,
        client: Option<(&Pem, &Pem)>,
        verification: Verification,
    ) -> Result<TlsSettings> {
        let provider = Arc::new(ring::default_provider());
        let unusable = |error| Error::invalid("the TLS settings cannot be used").with_source(error);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match verification {
            Verification::IssuerAndName => builder.with_root_certificates(trusted(authorities)?),
            Verification::Issuer => {
                let roots = Arc::new(trusted(authorities)?);
                let issuer = WebPkiServerVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| Error::invalid("the TLS settings cannot be used").with_source(error))?;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName(issuer)))
            }
            Verification::Nothing => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            }
        };
        let config = match client {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain.certificates()?, key.key()?).map_err(|error| {
                    let (chain, key) = (chain.setting(), key.setting());
                    Error::invalid(format!("{chain} and {key} do not fit together")).with_source(error)
                })?
            }
        };
        Ok(TlsSettings(Arc::new(config)))
    }

    /// A conversation with the broker of that name or address.
    pub(super) fn session(&self, server: &str) -> std::result::Result<Session, Failure> {
        let name = ServerName::try_from(server.to_owned())
            .map_err(|_| Failure::Denied(format!("{server} is no name that a certificate could have")))?;
        let mut connection = ClientConnection::new(Arc::clone(&self.0), name)
            .map_err(|error| Failure::Denied(format!("could not begin a TLS handshake: {error}")))?;
        // What waits to be sent is one request.
        connection.set_buffer_limit(None);
        Ok(Session(connection))
    }
}

/// Whom to trust: what is given, or what the operating system trusts.
fn trusted(authorities: Option<&Pem>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(pem) => {
            for certificate in pem.certificates()? {
                roots.add(certificate).map_err(|error| {
                    Error::invalid(format!("{} holds a certificate that cannot be used", pem.setting()))
                        .with_source(error)
                })?;
            }
        }
        None => {
            // Single ones that rustls cannot read are common, and no reason to give up.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(Error::invalid("no certificate authority is trusted here: set ssl.ca.location"));
    }
    Ok(roots)
}

#[derive(Debug)]
pub(super) struct Session(ClientConnection);

impl Session {
    /// Encrypts what waits and writes what the socket takes.
    pub(super) fn flush(&mut self, outbox: &mut Vec<u8>, socket: &mut TcpStream) -> std::result::Result<(), Failure> {
        let broke = |error: std::io::Error| Failure::lost("the connection broke", &error);
        if !outbox.is_empty() {
            self.0.writer().write_all(outbox).map_err(broke)?;
            outbox.clear();
        }
        while self.0.wants_write() {
            match self.0.write_tls(socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broke(error)),
            }
        }
        Ok(())
    }

    /// Reads what has come, decrypted; none when there is nothing, 0 at the end.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        socket: &mut TcpStream,
    ) -> std::result::Result<Option<usize>, Failure> {
        loop {
            match self.0.reader().read(buffer) {
                Ok(length) => return Ok(Some(length)),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Some(0)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(Failure::lost("the connection broke", &error)),
            }
            match self.0.read_tls(socket) {
                Ok(0) => return Ok(Some(0)),
                Ok(_) => {
                    if let Err(error) = self.0.process_new_packets() {
                        // Tells the broker why, if it still listens.
                        let _ = self.0.write_tls(socket);
                        return Err(explain(&error));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::lost("the connection broke", &error)),
            }
        }
    }
}

fn explain(error: &rustls::Error) -> Failure {
    let denied = |remedy: &str| Failure::Denied(format!("the TLS handshake failed ({error}): {remedy}"));
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => denied(
            "the broker's certificate is for another name; connect to the name it carries as a subject alternative name, or \
             set ssl.endpoint.identification.algorithm=none",
        ),
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            denied("the broker's certificate has expired")
        }
        rustls::Error::InvalidCertificate(_) => {
            denied("set ssl.ca.location to the authority that issued the broker's certificate")
        }
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::HandshakeFailure
            | AlertDescription::AccessDenied,
        ) => {
            denied("the broker wants a client certificate it trusts: set ssl.certificate.location and ssl.key.location")
        }
        rustls::Error::InvalidMessage(_) => Failure::Lost(format!(
            "what answers there does not speak TLS ({error}): check security.protocol and the port"
        )),
        error => Failure::Lost(format!("the TLS handshake failed: {error}")),
    }
}

/// Checks who issued a certificate and not for which name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(certificate, intermediates, server, ocsp, now) {
            // The name is looked at last, when everything else is good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Takes any certificate, as the user has asked for.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
