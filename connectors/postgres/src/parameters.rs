//! Typed values out of the parameters of a `url`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use txconnect_connector_api::ConfigProblem;

use crate::address::{AddressProblem, Parameters};
use crate::settings::{HostAddress, Keepalive};
use crate::tls::{ClientCertificate, RootCertificates, TlsMode, TlsSettings};

const DEFAULT_PORT: u16 = 5432;

/// After how much silence a connection is probed, how often and how many times: a host that vanished is noticed
/// within a minute.
pub(crate) const USUAL_KEEPALIVE: Keepalive =
    Keepalive { idle: Duration::from_secs(30), interval: Duration::from_secs(10), probes: 3 };

pub(crate) fn problem(message: impl Into<String>, help: impl Into<String>) -> ConfigProblem {
    ConfigProblem { path: "/url".to_owned(), message: message.into(), help: Some(help.into()) }
}

pub(crate) fn address_problem(error: AddressProblem) -> ConfigProblem {
    problem(
        format!("`url` cannot be read: {error}"),
        "write postgresql://user:password@host:5432/database; in user and password @ is %40, : is %3A, / is %2F, ? is %3F, % is %25",
    )
}

/// Typed values out of the parameters.
pub(crate) struct Reader<'a>(pub(crate) &'a Parameters);

/// Keys that are read, or that ask for nothing that would be missed.
const KNOWN_KEYS: [&str; 28] = [
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssencmode",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "sslcert",
    "sslcompression",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// Keys of libpq that would change what the user relies on: they are refused by name.
const REFUSED_KEYS: [(&str, &str); 9] = [
    ("passfile", "write the password as ${VARIABLE} or ${file:path} into `url`"),
    ("service", "write the settings of the service into `url`"),
    ("sslpassword", "give `sslkey` a key without a password"),
    ("sslcrl", "leave it out: revocation lists are not read"),
    ("sslcrldir", "leave it out: revocation lists are not read"),
    ("ssl_min_protocol_version", "leave it out: TLS 1.2 and 1.3 are spoken"),
    ("ssl_max_protocol_version", "leave it out: TLS 1.2 and 1.3 are spoken"),
    ("require_auth", "leave it out, or demand SCRAM with channel_binding=require"),
    ("replication", "leave it out: a sink does not replicate"),
];

impl Reader<'_> {
    pub(crate) fn refuse_unknown(&self) -> Result<(), ConfigProblem> {
        for (key, _) in self.0 {
            if let Some((key, help)) = REFUSED_KEYS.iter().find(|(refused, _)| refused == key) {
                return Err(problem(format!("`url` sets `{key}`, which is not supported"), *help));
            }
            if !KNOWN_KEYS.contains(&key.as_str()) {
                // The key may be the tail of a password with an unescaped `?` or `&`: it is not repeated.
                return Err(problem(
                    "`url` has a parameter of an unknown name",
                    format!(
                        "the parameters are {}; in a password ? is %3F and & is %26",
                        KNOWN_KEYS.join(", ")
                    ),
                ));
            }
        }
        if self.text("gssencmode").is_some_and(|mode| mode == "require") {
            return Err(problem("`url` demands GSSAPI encryption", "use TLS: sslmode=verify-full"));
        }
        Ok(())
    }

    /// The value of `key`; empty is the same as missing.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        let value = self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        value.filter(|value| !value.is_empty())
    }

    pub(crate) fn one_of<T: Copy>(
        &self,
        key: &str,
        values: &[(&str, T)],
    ) -> Result<Option<T>, ConfigProblem> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let names = || values.iter().map(|(name, _)| *name).collect::<Vec<&str>>().join(", ");
        values
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, value)| Some(*value))
            .ok_or_else(|| problem(format!("`{key}` in `url` has a value that is none of its own"), names()))
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, ConfigProblem> {
        self.text(key)
            .map(|text| {
                text.trim().parse().map_err(|_| {
                    problem(format!("`{key}` in `url` is not a whole number"), format!("write {key}=10"))
                })
            })
            .transpose()
    }

    /// A time in seconds; 0 means what is usual.
    pub(crate) fn seconds(&self, key: &str) -> Result<Option<Duration>, ConfigProblem> {
        Ok(self.number(key)?.filter(|&seconds| seconds > 0).map(Duration::from_secs))
    }

    pub(crate) fn keepalive(&self) -> Result<Option<Keepalive>, ConfigProblem> {
        let probes = match self.number("keepalives_count")? {
            Some(probes) => Some(probes),
            None => self.number("keepalives_retries")?,
        };
        let keepalive = Keepalive {
            idle: self.seconds("keepalives_idle")?.unwrap_or(USUAL_KEEPALIVE.idle),
            interval: self.seconds("keepalives_interval")?.unwrap_or(USUAL_KEEPALIVE.interval),
            probes: probes
                .and_then(|probes| u32::try_from(probes).ok())
                .filter(|&probes| probes > 0)
                .unwrap_or(USUAL_KEEPALIVE.probes),
        };
        Ok((self.number("keepalives")? != Some(0)).then_some(keepalive))
    }

    pub(crate) fn hosts(&self) -> Result<Vec<HostAddress>, ConfigProblem> {
        let split = |key: &str| -> Vec<String> {
            self.text(key).map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
        };
        let (names, addresses, ports) = (split("host"), split("hostaddr"), split("port"));
        if names.is_empty() && addresses.is_empty() {
            return Err(problem(
                "`url` names no host",
                "write postgresql://user:password@host:5432/database",
            ));
        }
        let count = names.len().max(addresses.len());
        if (!names.is_empty() && !addresses.is_empty() && names.len() != addresses.len())
            || (ports.len() > 1 && ports.len() != count)
        {
            return Err(problem(
                format!(
                    "`url` has {} hosts, {} addresses and {} ports",
                    names.len(),
                    addresses.len(),
                    ports.len()
                ),
                "give every host its port, or one port for all",
            ));
        }
        (0..count)
            .map(|index| {
                let port = ports.get(index).or_else(|| ports.first().filter(|_| ports.len() == 1));
                host_address(names.get(index), addresses.get(index), port)
            })
            .collect()
    }

    pub(crate) fn tls(&self) -> Result<TlsSettings, ConfigProblem> {
        let mode = match self.text("sslmode") {
            None => TlsMode::default(),
            Some(text) => TlsMode::parse(&text).ok_or_else(|| {
                problem(
                    "`sslmode` in `url` has a value that is none of its own",
                    "disable, allow, prefer, require, verify-ca or verify-full",
                )
            })?,
        };
        let roots = self.text("sslrootcert").map(|text| match text.as_str() {
            "system" => RootCertificates::System,
            path => RootCertificates::File(PathBuf::from(path)),
        });
        if roots == Some(RootCertificates::System) && mode != TlsMode::VerifyFull {
            return Err(problem(
                "`sslrootcert=system` needs `sslmode=verify-full`",
                "anybody gets a certificate of a public authority for some host: the host must be checked too",
            ));
        }
        let client = match (self.text("sslcert"), self.text("sslkey")) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                Some(ClientCertificate { certificate: certificate.into(), key: key.into() })
            }
            _ => {
                return Err(problem(
                    "`url` has only one of `sslcert` and `sslkey`",
                    "a client certificate needs both files",
                ));
            }
        };
        let direct =
            self.one_of("sslnegotiation", &[("postgres", false), ("direct", true)])?.unwrap_or(false);
        if direct && matches!(mode, TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer) {
            return Err(problem(
                "`sslnegotiation=direct` needs TLS",
                "set sslmode=require, verify-ca or verify-full",
            ));
        }
        let wishes = [
            ("any", ()),
            ("read-write", ()),
            ("primary", ()),
            ("prefer-standby", ()),
            ("read-only", ()),
            ("standby", ()),
        ];
        self.one_of("target_session_attrs", &wishes)?;
        if self
            .text("target_session_attrs")
            .is_some_and(|wish| matches!(wish.as_str(), "read-only" | "standby" | "prefer-standby"))
        {
            return Err(problem(
                "`target_session_attrs` asks for a server that is only read",
                "write read-write",
            ));
        }
        Ok(TlsSettings { mode, roots, client, direct })
    }
}

fn host_address(
    name: Option<&String>,
    address: Option<&String>,
    port: Option<&String>,
) -> Result<HostAddress, ConfigProblem> {
    let port = match port.map(|port| port.trim()).filter(|port| !port.is_empty()) {
        None => DEFAULT_PORT,
        Some(text) => text.parse().ok().filter(|&port| port > 0).ok_or_else(|| {
            problem(
                "a port in `url` is not a number from 1 to 65535",
                "if that is not what you meant: in user and password @ is %40, : is %3A, / is %2F",
            )
        })?,
    };
    let address = address
        .filter(|address| !address.is_empty())
        .map(|address| {
            address.parse::<IpAddr>().map_err(|_| {
                problem("`hostaddr` in `url` is not an IP address", "write a name with `host` instead")
            })
        })
        .transpose()?;
    let name = name.filter(|name| !name.is_empty());
    match (name, address) {
        (Some(folder), _) if folder.starts_with('/') => {
            Ok(HostAddress::Socket { folder: Path::new(folder).to_owned(), port })
        }
        (Some(name), _) if name.contains(['@', ' ']) => Err(address_problem(AddressProblem::AtSignInHost)),
        (Some(name), address) => Ok(HostAddress::Network { name: name.clone(), address, port }),
        (None, Some(address)) => {
            Ok(HostAddress::Network { name: address.to_string(), address: Some(address), port })
        }
        (None, None) => Err(problem("a host in `url` is empty", "take the superfluous comma out")),
    }
}
