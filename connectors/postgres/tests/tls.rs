//! Every `sslmode` against good and bad certificates, on a PostgreSQL with TLS of the test's own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use support::own_server::OwnServer;
use support::{connector, one, refusal};
use txconnect_connector_api::SinkError;

const SETTINGS: &str =
    "ssl = on\nssl_cert_file = '../server.crt'\nssl_key_file = '../server.key'\nssl_ca_file = '../ca.crt'\n";

const ACCESS: &str = "\
hostssl all postgres 127.0.0.1/32 scram-sha-256
hostssl all certain  127.0.0.1/32 cert
hostnossl all plain  127.0.0.1/32 scram-sha-256
";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, as PEM.
struct Signed {
    certificate: String,
    key: String,
}

fn sign(authority: &Authority, parameters: &CertificateParams) -> Signed {
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.signed_by(&key, authority).unwrap();
    Signed { certificate: certificate.pem(), key: key.serialize_pem() }
}

fn for_host(host: &str) -> CertificateParams {
    CertificateParams::new(vec![host.to_owned()]).unwrap()
}

fn for_user(user: &str) -> CertificateParams {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, user);
    parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    parameters
}

fn install(server: &OwnServer, signed: &Signed) {
    server.write("server.crt", &signed.certificate);
    server.write("server.key", &signed.key);
    server.restart();
}

fn serve(authority: &Authority, signed: &Signed) -> OwnServer {
    let server = OwnServer::start("", ACCESS);
    server.write("ca.crt", &authority.pem());
    server.configure(SETTINGS, ACCESS);
    install(&server, signed);
    server
}

/// Whether the session of `url` is encrypted.
async fn is_encrypted(url: &str) -> bool {
    let session =
        connector(url).connect("txconnect tls").await.unwrap_or_else(|error| panic!("{url}: {error}"));
    one(&session, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await == "true"
}

/// Connecting fails for good, with these words and a way out.
async fn refused(url: &str, words: &str) {
    let error = refusal(url).await;
    assert!(
        matches!(&error, SinkError::Fatal { cause, hint: Some(_) } if cause.contains(words) && !cause.contains("secret")),
        "{url}: {error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sslmode_believes_what_it_promises() {
    let (ours, foreign) = (authority("ours"), authority("foreign"));
    let right = sign(&ours, &for_host("localhost"));
    let server = serve(&ours, &right);
    let root = server.path("ca.crt").display().to_string();
    let foreign_root = server.write("foreign.crt", &foreign.pem()).display().to_string();
    let url = |parameters: &str| {
        format!("postgresql://postgres:secret@localhost:{}/postgres?{parameters}", server.port)
    };
    let rooted = |mode: &str| url(&format!("sslmode={mode}&sslrootcert={root}"));

    for parameters in
        ["", "sslmode=allow", "sslmode=prefer", "sslmode=require", "sslmode=require&channel_binding=require"]
    {
        assert!(is_encrypted(&url(parameters)).await, "{parameters}");
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        assert!(is_encrypted(&rooted(mode)).await, "{mode}");
        refused(&url(&format!("sslmode={mode}&sslrootcert={foreign_root}")), "no authority that we know")
            .await;
    }
    refused(&url("sslmode=disable"), "no encryption").await;
    refused(&rooted("verify-full").replace("secret", "wrong"), "password authentication failed").await;
    // The name in the certificate, and not the address behind it, is what counts.
    refused(&rooted("verify-full").replace("localhost", "127.0.0.1"), "for another host").await;
    assert!(is_encrypted(&rooted("verify-full").replace('?', "?hostaddr=127.0.0.1&")).await);

    install(&server, &sign(&ours, &for_host("db.example")));
    refused(&rooted("verify-full"), "for another host").await;
    assert!(is_encrypted(&rooted("verify-ca")).await);
    assert!(is_encrypted(&url("sslmode=require")).await);

    let mut expired = for_host("localhost");
    expired.not_before = date_time_ymd(2001, 1, 1);
    expired.not_after = date_time_ymd(2002, 1, 1);
    install(&server, &sign(&ours, &expired));
    refused(&rooted("verify-full"), "has expired").await;
    refused(&rooted("verify-ca"), "has expired").await;
    assert!(is_encrypted(&url("sslmode=require")).await);

    install(&server, &sign(&foreign, &for_host("localhost")));
    refused(&rooted("verify-full"), "no authority that we know").await;
    refused(&rooted("verify-ca"), "no authority that we know").await;
    assert!(is_encrypted(&url("")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_and_plain_connections_where_the_server_asks_for_them() {
    let (ours, foreign) = (authority("ours"), authority("foreign"));
    let server = serve(&ours, &sign(&ours, &for_host("localhost")));
    let root = server.path("ca.crt").display().to_string();
    let address = |user: &str| format!("postgresql://{user}@localhost:{}/postgres", server.port);
    let admin = connector(&address("postgres:secret")).connect("txconnect tls").await.unwrap();
    support::run(&admin, "CREATE ROLE certain LOGIN; CREATE ROLE plain LOGIN PASSWORD 'secret'").await;

    let certain = |name: &str, signed: &Signed| {
        let certificate = server.write(&format!("{name}.crt"), &signed.certificate);
        let key = server.write(&format!("{name}.key"), &signed.key);
        let (certificate, key) = (certificate.display(), key.display());
        format!(
            "{}?sslmode=verify-full&sslrootcert={root}&sslcert={certificate}&sslkey={key}",
            address("certain")
        )
    };
    assert!(is_encrypted(&certain("right", &sign(&ours, &for_user("certain")))).await);
    refused(&certain("foreign", &sign(&foreign, &for_user("certain"))), "refused our client certificate")
        .await;
    refused(&certain("other", &sign(&ours, &for_user("somebody"))), "certificate authentication failed")
        .await;
    refused(&format!("{}?sslmode=verify-full&sslrootcert={root}", address("certain")), "client certificate")
        .await;

    // Whoever prefers TLS goes without where the server wants it so.
    for mode in ["prefer", "allow", "disable"] {
        assert!(!is_encrypted(&format!("{}?sslmode={mode}", address("plain:secret"))).await, "{mode}");
    }
    refused(&format!("{}?sslmode=require", address("plain:secret")), "SSL encryption").await;
}
