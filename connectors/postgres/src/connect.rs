//! Connections: hosts, TLS, time-outs.
//!
//! Hosts are tried one after the other until one takes writes. What a name stands for is looked up anew every time, so
//! that a failover by DNS is followed.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use txconnect_connector_api::SinkError;

use crate::error::{Trouble, classify};
use crate::session::{self, Opening};
pub use crate::session::{Begun, Session};
pub use crate::settings::ConnectionSettings;
use crate::settings::{AttemptTls, HostAddress};
use crate::tls::{self, TlsMode};

/// The longest `application_name` that PostgreSQL keeps, in bytes.
const LONGEST_APPLICATION_NAME: usize = 63;

/// The `application_name` of all sessions of `pipeline`: `txconnect <pipeline>`, and something else for every other
/// pipeline.
///
/// PostgreSQL cuts long names and replaces what is not ASCII, so such names end in a hash of the whole.
pub fn application_name(pipeline: &str) -> String {
    let name = format!("txconnect {pipeline}");
    let plain = |character: char| character == ' ' || character.is_ascii_graphic();
    if name.len() <= LONGEST_APPLICATION_NAME && name.chars().all(plain) {
        return name;
    }
    // FNV-1a: the same in every process and version.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let room = LONGEST_APPLICATION_NAME - " 0123456789abcdef".len();
    let start: String =
        name.chars().map(|character| if plain(character) { character } else { '_' }).take(room).collect();
    format!("{start} {hash:016x}")
}

/// Opens sessions.
#[derive(Clone, Debug)]
pub struct Connector {
    settings: Arc<ConnectionSettings>,
}

impl Connector {
    /// Connects to nothing yet.
    pub fn new(settings: ConnectionSettings) -> Self {
        Self { settings: Arc::new(settings) }
    }

    /// How long one call to the server may take.
    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// Opens a session on the first host that can be written to. Ends after `connect_timeout` for every
    /// address of every host.
    ///
    /// The error names what every host said. It is [`SinkError::Transient`] if waiting may help with one of them, and
    /// [`SinkError::Fatal`] otherwise: wrong password or certificate, no such database, a server that is too old.
    pub async fn connect(&self, application_name: &str) -> Result<Session, SinkError> {
        let mut refusals = Vec::new();
        for host in self.hosts() {
            match self.connect_host(host, application_name).await {
                Ok(session) => return Ok(session),
                Err(trouble) => refusals.push(trouble),
            }
        }
        Err(join(refusals))
    }

    /// Runs one step towards `host`, and gives it up after `connect_timeout`.
    async fn in_time<T>(
        &self,
        host: &HostAddress,
        step: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        let limit = self.settings.connect_timeout;
        // A connection in the making is large: on the heap it does not weigh on whoever waits for it.
        timeout(limit, Box::pin(step)).await.unwrap_or_else(|_| {
            Err(Trouble::Away {
                cause: format!(
                    "{host}: no answer within {} s: the host is down, frozen or behind a firewall",
                    limit.as_secs_f32()
                ),
            })
        })
    }

    fn hosts(&self) -> Vec<&HostAddress> {
        let mut hosts: Vec<&HostAddress> = self.settings.hosts.iter().collect();
        if self.settings.random_order {
            let state = RandomState::new();
            hosts.sort_by_cached_key(|host| state.hash_one(host.to_string()));
        }
        hosts
    }

    async fn connect_host(&self, host: &HostAddress, application_name: &str) -> Result<Session, Trouble> {
        let mut last = None;
        for address in self.in_time(host, addresses(host)).await? {
            match self.in_time(host, self.connect_address(host, address, application_name)).await {
                Ok(session) => return Ok(session),
                Err(trouble) => last = Some(trouble),
            }
        }
        Err(last.unwrap_or_else(|| Trouble::Away { cause: format!("{host}: the name has no address") }))
    }

    async fn connect_address(
        &self,
        host: &HostAddress,
        address: Option<IpAddr>,
        application_name: &str,
    ) -> Result<Session, Trouble> {
        let (first, second) = match (host, self.settings.tls.mode) {
            // A socket of this machine needs no TLS, and PostgreSQL offers none.
            (HostAddress::Socket { .. }, _) | (_, TlsMode::Disable) => (AttemptTls::Never, None),
            (_, TlsMode::Allow) => (AttemptTls::Never, Some(AttemptTls::Always)),
            (_, TlsMode::Prefer) => (AttemptTls::IfOffered, Some(AttemptTls::Never)),
            _ => (AttemptTls::Always, None),
        };
        match (self.attempt(host, address, first, application_name).await, second) {
            (Err((trouble, true)), Some(second)) => {
                // What the first attempt said is of more use when neither gets through.
                self.attempt(host, address, second, application_name).await.map_err(|_| trouble)
            }
            (result, _) => result.map_err(|(trouble, _)| trouble),
        }
    }

    /// One attempt. With an error it says whether it may be different with TLS, or without it.
    async fn attempt(
        &self,
        host: &HostAddress,
        address: Option<IpAddr>,
        encryption: AttemptTls,
        application_name: &str,
    ) -> Result<Session, (Trouble, bool)> {
        let connector = self.settings.tls.connector().map_err(|error| {
            let hint = "correct the path in `url`, or put the file back".to_owned();
            (Trouble::Refused { cause: format!("{host}: {error}"), hint }, false)
        })?;
        let config = self.settings.config(host, address, encryption, application_name);
        let (client, connection) = config.connect(connector.clone()).await.map_err(|error| {
            let about_tls = tls::cause(&error).is_some()
                || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
            (classify(&error, &host.to_string()), about_tls)
        })?;
        let opening = Opening {
            host: host.to_string(),
            application_name: application_name.to_owned(),
            timeout: self.settings.timeout,
            tls: connector,
        };
        session::open(client, connection, opening).await.map_err(|trouble| (trouble, false))
    }
}

/// The addresses behind a host, in the order in which they are tried; `None` for a socket.
async fn addresses(host: &HostAddress) -> Result<Vec<Option<IpAddr>>, Trouble> {
    match host {
        HostAddress::Socket { .. } => Ok(vec![None]),
        HostAddress::Network { address: Some(address), .. } => Ok(vec![Some(*address)]),
        HostAddress::Network { name, port, .. } => match lookup_host((name.as_str(), *port)).await {
            Ok(found) => Ok(found.map(|address| Some(address.ip())).collect()),
            Err(_) => Err(Trouble::Away {
                cause: format!("{host}: the name `{name}` was not found: check its spelling and the DNS"),
            }),
        },
    }
}

/// One error for all hosts: it passes if one of them passes.
fn join(refusals: Vec<Trouble>) -> SinkError {
    let causes: Vec<&str> = refusals.iter().map(Trouble::cause).collect();
    let cause = format!("cannot connect to PostgreSQL at {}", causes.join("; "));
    let lasting = refusals.into_iter().map(SinkError::from).try_fold(None, |hint, error| match error {
        SinkError::Fatal { hint: another, .. } => Some(hint.or(another)),
        _ => None,
    });
    match lasting {
        Some(hint) => SinkError::Fatal { cause, hint },
        None => SinkError::transient(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelines_have_different_names_that_postgres_keeps_as_they_are() {
        assert_eq!(application_name("transactions"), "txconnect transactions");
        let long = "a".repeat(80);
        let names =
            [application_name(&long), application_name(&format!("{long}b")), application_name("zwölf")];
        for (index, name) in names.iter().enumerate() {
            assert!(name.len() <= LONGEST_APPLICATION_NAME && name.is_ascii(), "{name}");
            assert!(!names[..index].contains(name), "{name}");
        }
    }

    #[test]
    fn one_host_that_may_come_back_makes_the_whole_worth_another_try() {
        let away = Trouble::Away { cause: "a:1: connection refused".to_owned() };
        let refused = Trouble::Refused { cause: "b:1: no".to_owned(), hint: "do".to_owned() };
        let both = join(vec![away, refused.clone()]);
        assert!(
            matches!(&both, SinkError::Transient { cause, .. } if cause.contains("a:1") && cause.contains("b:1"))
        );
        assert!(matches!(join(vec![refused]), SinkError::Fatal { hint: Some(hint), .. } if hint == "do"));
    }
}
