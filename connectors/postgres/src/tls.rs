//! TLS as PostgreSQL's own clients do it: `sslmode`, root and client certificates.
//!
//! What the modes promise: <https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION>.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How much a connection is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TlsMode {
    /// Never TLS.
    Disable,
    /// TLS only where the server insists on it.
    Allow,
    /// TLS where the server offers it.
    #[default]
    Prefer,
    /// Always TLS; the server's certificate is checked only against a root certificate that was given.
    Require,
    /// Always TLS with a certificate of a known authority.
    VerifyCa,
    /// Always TLS with a certificate of a known authority for this very host.
    VerifyFull,
}

impl TlsMode {
    /// Reads a value of `sslmode`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }
}

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RootCertificates {
    /// Those that the operating system believes.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}

/// The certificate that tells the server who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// A PEM file with the certificate and those between it and its root.
    pub(crate) certificate: PathBuf,
    /// A PEM file with its unencrypted key.
    pub(crate) key: PathBuf,
}

/// Everything about TLS in a `url`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    pub(crate) mode: TlsMode,
    pub(crate) roots: Option<RootCertificates>,
    pub(crate) client: Option<ClientCertificate>,
    /// Whether the handshake starts at once, without PostgreSQL's own request for it (PostgreSQL 17).
    pub(crate) direct: bool,
}

/// Why certificates cannot be used. Names files, not their contents.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TlsProblem {
    #[error("`{key}`: cannot read `{}`: {why}", path.display())]
    Unreadable { key: &'static str, path: PathBuf, why: String },
    #[error("`{key}`: `{}` holds no {what} in PEM format", path.display())]
    Empty { key: &'static str, path: PathBuf, what: &'static str },
    #[error("the operating system has no root certificates (package ca-certificates)")]
    NoSystemRoots,
    #[error("`sslcert` and `sslkey` do not fit together: {0}")]
    ClientCertificate(String),
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

impl TlsSettings {
    /// Reads the files anew, so that renewed certificates are used by the next connection.
    pub(crate) fn connector(&self) -> Result<MakeRustlsConnect, TlsProblem> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = self.verifier(&provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsProblem::Setup(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some(client) => builder
                .with_client_auth_cert(
                    read_certificates("sslcert", &client.certificate)?,
                    read_key("sslkey", &client.key)?,
                )
                .map_err(|error| TlsProblem::ClientCertificate(error.to_string()))?,
        };
        if self.direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(MakeRustlsConnect::new(config))
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TlsProblem> {
        let roots = match (self.mode, &self.roots) {
            (TlsMode::VerifyCa | TlsMode::VerifyFull, None) | (_, Some(RootCertificates::System)) => {
                system_roots()?
            }
            (TlsMode::Disable, _) | (_, None) => {
                return Ok(Arc::new(AnyCertificate { provider: Arc::clone(provider) }));
            }
            (_, Some(RootCertificates::File(path))) => file_roots(path)?,
        };
        let full = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| TlsProblem::Setup(error.to_string()))?;
        Ok(if self.mode == TlsMode::VerifyFull { full } else { Arc::new(AnyName { full }) })
    }
}

fn system_roots() -> Result<RootCertStore, TlsProblem> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsProblem::NoSystemRoots) } else { Ok(roots) }
}

fn file_roots(path: &Path) -> Result<RootCertStore, TlsProblem> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(read_certificates("sslrootcert", path)?);
    if roots.is_empty() {
        return Err(TlsProblem::Empty {
            key: "sslrootcert",
            path: path.to_owned(),
            what: "usable certificate",
        });
    }
    Ok(roots)
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsProblem> {
    std::fs::read(path).map_err(|error| TlsProblem::Unreadable {
        key,
        path: path.to_owned(),
        why: error.to_string(),
    })
}

fn read_certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let text = read(key, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(TlsProblem::Empty { key, path: path.to_owned(), what: "certificate" }),
    }
}

fn read_key(key: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    PrivateKeyDer::from_pem_slice(&read(key, path)?).map_err(|_| TlsProblem::Empty {
        key,
        path: path.to_owned(),
        what: "unencrypted private key",
    })
}

/// Takes every certificate: the traffic is hidden from those who listen, not from those who stand between.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes certificates of a known authority, whatever host they are for.
#[derive(Debug)]
struct AnyName {
    full: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.full.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is looked at last: by then the chain has been found good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.full.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.full.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.full.supported_verify_schemes()
    }
}

/// What is wrong with TLS and the way out, if that is what `error` is about.
pub(crate) fn cause(error: &tokio_postgres::Error) -> Option<(String, &'static str)> {
    let mut source = error.source();
    while let Some(current) = source {
        if let Some(tls) = current.downcast_ref::<rustls::Error>() {
            return Some(explain(tls));
        }
        // An io::Error hides the error that it was made from behind `get_ref`.
        let inner = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        source = match inner {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => current.source(),
        };
    }
    // The client library has no type for the server's "no" to the request for TLS.
    error.source().filter(|source| source.to_string() == "server does not support TLS").map(|_| {
        (
            "the server does not speak TLS".to_owned(),
            "set `ssl = on` on the server, or allow a plain connection with sslmode=prefer in `url`",
        )
    })
}

fn explain(error: &rustls::Error) -> (String, &'static str) {
    match error {
        rustls::Error::InvalidCertificate(certificate) => explain_certificate(certificate),
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::UnknownCA
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied,
        ) => (
            format!("the server refused our client certificate ({error})"),
            "check `sslcert` and `sslkey` in `url`: the server's `ssl_ca_file` must know who signed the certificate",
        ),
        _ => (
            format!("the TLS handshake failed: {error}"),
            "check `sslmode` in `url` and the server's TLS settings; TLS 1.2 and 1.3 are spoken",
        ),
    }
}

fn explain_certificate(error: &CertificateError) -> (String, &'static str) {
    match error {
        CertificateError::UnknownIssuer => (
            "the server's TLS certificate was signed by no authority that we know".to_owned(),
            "name the certificate of the server's authority with sslrootcert=FILE in `url`",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "the server's TLS certificate has expired".to_owned(),
            "renew the certificate on the server, and check the clocks",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("the server's TLS certificate is not valid yet".to_owned(), "check the clocks of both machines")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "the server's TLS certificate is for another host".to_owned(),
            "use the host name of the certificate in `url`, or sslmode=verify-ca where the authority is yours alone",
        ),
        other => (
            format!("the server's TLS certificate is not good: {other}"),
            "renew the certificate on the server",
        ),
    }
}
