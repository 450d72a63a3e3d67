//! A `url` → everything that a connection needs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};
use txconnect_connector_api::{ConfigProblem, Secret};

use crate::address::{self, AddressProblem, Parameters};
use crate::tls::{ClientCertificate, RootCertificates, TlsMode, TlsSettings};

const DEFAULT_PORT: u16 = 5432;

/// Longest wait for one host where `connect_timeout` does not say: the next host is to have its turn.
const LONGEST_USUAL_CONNECT: Duration = Duration::from_secs(10);

/// After how much silence a connection is probed, how often and how many times: a host that vanished is noticed
/// within a minute.
const USUAL_KEEPALIVE: Keepalive =
    Keepalive { idle: Duration::from_secs(30), interval: Duration::from_secs(10), probes: 3 };

/// Where a database is, who we are there and how the way is protected.
///
/// Read from `postgresql://user:password@host:port,host:port/database?key=value` or from `key=value` words, with libpq's
/// keys: `host`, `hostaddr`, `port`, `user`, `password`, `dbname`, `options`, `connect_timeout` (seconds),
/// `tcp_user_timeout` (milliseconds), `keepalives`, `keepalives_idle`, `keepalives_interval` (seconds),
/// `keepalives_count`, `target_session_attrs`, `load_balance_hosts`, `channel_binding`, `sslmode`, `sslnegotiation`,
/// `sslrootcert`, `sslcert`, `sslkey`.
///
/// What is not said is as with libpq (`sslmode=prefer`, port 5432, the user of the process, a database named like the
/// user), but for this: a host must be named; a connection attempt ends after 10 seconds or the time-out of calls,
/// whichever is less; a silent connection is probed after 30 seconds; `verify-ca` and `verify-full` without
/// `sslrootcert` believe the authorities of the operating system. A sink writes, so of several hosts the first one that
/// takes writes is used whatever `target_session_attrs` says. `application_name` is ours. Files are looked for from the
/// working directory.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    pub(crate) hosts: Vec<HostAddress>,
    pub(crate) random_order: bool,
    user: Option<String>,
    password: Option<Secret>,
    database: Option<String>,
    options: Option<String>,
    pub(crate) tls: TlsSettings,
    channel_binding: ChannelBinding,
    pub(crate) connect_timeout: Duration,
    tcp_user_timeout: Duration,
    keepalive: Option<Keepalive>,
    /// How long one call may take.
    pub(crate) timeout: Duration,
}

/// One of the places where the server may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostAddress {
    /// A name or an IP address, with the address to use where the name is not to be looked up.
    Network { name: String, address: Option<IpAddr>, port: u16 },
    /// A socket in a folder of this machine.
    Socket { folder: PathBuf, port: u16 },
}

impl std::fmt::Display for HostAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network { name, port, .. } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Network { name, port, .. } => write!(f, "{name}:{port}"),
            Self::Socket { folder, port } => write!(f, "{}/.s.PGSQL.{port}", folder.display()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Keepalive {
    idle: Duration,
    interval: Duration,
    probes: u32,
}

impl ConnectionSettings {
    /// Reads `url`. `timeout` is how long one call to the server may take.
    ///
    /// Looks at the certificate files, and connects to nothing. A problem never repeats the password, nor anything that
    /// could be a piece of it.
    pub fn parse(url: &Secret, timeout: Duration) -> Result<Self, ConfigProblem> {
        let parameters = address::parse(url.expose()).map_err(address_problem)?;
        let settings = Self::from_parameters(&parameters, timeout)?;
        if settings.tls.mode != TlsMode::Disable {
            settings
                .tls
                .connector()
                .map_err(|error| problem(error.to_string(), "correct the path in `url`"))?;
        }
        Ok(settings)
    }

    fn from_parameters(parameters: &Parameters, timeout: Duration) -> Result<Self, ConfigProblem> {
        let read = Reader(parameters);
        read.refuse_unknown()?;
        let hosts = read.hosts()?;
        let tls = read.tls()?;
        let usual_connect = timeout.min(LONGEST_USUAL_CONNECT);
        Ok(Self {
            hosts,
            random_order: read
                .one_of("load_balance_hosts", &[("disable", false), ("random", true)])?
                .unwrap_or(false),
            user: read.text("user"),
            password: read.text("password").map(Secret::new),
            database: read.text("dbname"),
            options: read.text("options"),
            tls,
            channel_binding: read
                .one_of(
                    "channel_binding",
                    &[
                        ("disable", ChannelBinding::Disable),
                        ("prefer", ChannelBinding::Prefer),
                        ("require", ChannelBinding::Require),
                    ],
                )?
                .unwrap_or(ChannelBinding::Prefer),
            connect_timeout: read.seconds("connect_timeout")?.unwrap_or(usual_connect),
            tcp_user_timeout: read
                .number("tcp_user_timeout")?
                .filter(|&milliseconds| milliseconds > 0)
                .map_or(timeout, Duration::from_millis),
            keepalive: read.keepalive()?,
            timeout,
        })
    }

    /// The client library's settings for one attempt at one address.
    pub(crate) fn config(
        &self,
        host: &HostAddress,
        address: Option<IpAddr>,
        tls: AttemptTls,
        application_name: &str,
    ) -> Config {
        let mut config = Config::new();
        match host {
            HostAddress::Network { name, port, .. } => {
                config.host(name).port(*port);
                if let Some(address) = address {
                    config.hostaddr(address);
                }
            }
            HostAddress::Socket { folder, port } => {
                config.host_path(folder).port(*port);
            }
        }
        if let Some(user) = &self.user {
            config.user(user);
        }
        if let Some(password) = &self.password {
            config.password(password.expose());
        }
        if let Some(database) = &self.database {
            config.dbname(database);
        }
        if let Some(options) = &self.options {
            config.options(options);
        }
        config
            .application_name(application_name)
            .channel_binding(self.channel_binding)
            .connect_timeout(self.connect_timeout)
            .tcp_user_timeout(self.tcp_user_timeout)
            .ssl_mode(match tls {
                AttemptTls::Never => SslMode::Disable,
                AttemptTls::IfOffered => SslMode::Prefer,
                AttemptTls::Always => SslMode::Require,
            })
            .ssl_negotiation(if self.tls.direct && tls == AttemptTls::Always {
                SslNegotiation::Direct
            } else {
                SslNegotiation::Postgres
            })
            .keepalives(self.keepalive.is_some());
        if let Some(keepalive) = self.keepalive {
            config
                .keepalives_idle(keepalive.idle)
                .keepalives_interval(keepalive.interval)
                .keepalives_retries(keepalive.probes);
        }
        config
    }
}

/// Whether one attempt to connect uses TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptTls {
    Never,
    IfOffered,
    Always,
}

fn problem(message: impl Into<String>, help: impl Into<String>) -> ConfigProblem {
    ConfigProblem { path: "/url".to_owned(), message: message.into(), help: Some(help.into()) }
}

fn address_problem(error: AddressProblem) -> ConfigProblem {
    problem(
        format!("`url` cannot be read: {error}"),
        "write postgresql://user:password@host:5432/database; in user and password @ is %40, : is %3A, / is %2F, ? is %3F, % is %25",
    )
}

/// Typed values out of the parameters.
struct Reader<'a>(&'a Parameters);

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
    fn refuse_unknown(&self) -> Result<(), ConfigProblem> {
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
    fn text(&self, key: &str) -> Option<String> {
        let value = self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        value.filter(|value| !value.is_empty())
    }

    fn one_of<T: Copy>(&self, key: &str, values: &[(&str, T)]) -> Result<Option<T>, ConfigProblem> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let names = || values.iter().map(|(name, _)| *name).collect::<Vec<&str>>().join(", ");
        values
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, value)| Some(*value))
            .ok_or_else(|| problem(format!("`{key}` in `url` has a value that is none of its own"), names()))
    }

    fn number(&self, key: &str) -> Result<Option<u64>, ConfigProblem> {
        self.text(key)
            .map(|text| {
                text.trim().parse().map_err(|_| {
                    problem(format!("`{key}` in `url` is not a whole number"), format!("write {key}=10"))
                })
            })
            .transpose()
    }

    /// A time in seconds; 0 means what is usual.
    fn seconds(&self, key: &str) -> Result<Option<Duration>, ConfigProblem> {
        Ok(self.number(key)?.filter(|&seconds| seconds > 0).map(Duration::from_secs))
    }

    fn keepalive(&self) -> Result<Option<Keepalive>, ConfigProblem> {
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

    fn hosts(&self) -> Result<Vec<HostAddress>, ConfigProblem> {
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

    fn tls(&self) -> Result<TlsSettings, ConfigProblem> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn parse(text: &str) -> Result<ConnectionSettings, ConfigProblem> {
        ConnectionSettings::parse(&Secret::new(text), TIMEOUT)
    }

    fn host(name: &str, port: u16) -> HostAddress {
        HostAddress::Network { name: name.to_owned(), address: None, port }
    }

    #[test]
    fn several_hosts_have_their_own_ports_or_one_for_all() {
        let hosts = |text: &str| parse(text).unwrap().hosts;
        assert_eq!(hosts("postgresql://a:1,b,c:3/d"), [host("a", 1), host("b", 5432), host("c", 3)]);
        assert_eq!(hosts("host=a,b port=7"), [host("a", 7), host("b", 7)]);
        let socket = HostAddress::Socket { folder: "/run/pg".into(), port: 5432 };
        assert_eq!(hosts("host=/run/pg"), [socket]);
        let address = "10.0.0.1".parse().ok();
        assert_eq!(
            hosts("host=a hostaddr=10.0.0.1"),
            [HostAddress::Network { name: "a".into(), address, port: 5432 }]
        );
        assert!(parse("host=a,b port=1,2,3").is_err());
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let settings = parse("postgresql://u@h/d").unwrap();
        assert_eq!(settings.tls, TlsSettings::default());
        assert_eq!(settings.tls.mode, TlsMode::Prefer);
        assert_eq!(settings.connect_timeout, LONGEST_USUAL_CONNECT);
        assert_eq!(settings.tcp_user_timeout, TIMEOUT);
        assert_eq!(settings.keepalive, Some(USUAL_KEEPALIVE));
    }

    #[test]
    fn times_carry_the_units_of_libpq() {
        let settings =
            parse("host=h connect_timeout=3 tcp_user_timeout=1500 keepalives_idle=9 keepalives_count=2")
                .unwrap();
        assert_eq!(settings.connect_timeout, Duration::from_secs(3));
        assert_eq!(settings.tcp_user_timeout, Duration::from_millis(1500));
        let expected = Keepalive { idle: Duration::from_secs(9), probes: 2, ..USUAL_KEEPALIVE };
        assert_eq!(settings.keepalive, Some(expected));
        assert_eq!(parse("host=h keepalives=0").unwrap().keepalive, None);
    }

    #[test]
    fn problems_name_the_key_and_the_way_out_but_no_piece_of_the_password() {
        for (text, words) in [
            ("postgresql:///d?user=marker", "names no host"),
            ("postgresql://u:marker@h:x/d", "port"),
            ("postgresql://u:mar/marker@h/d", "port"),
            ("postgresql://u:marker@marker@h/d", "@"),
            ("postgresql://u:p?marker=1@h/d", "port"),
            ("postgresql://h/d?password=p&marker=1", "unknown name"),
            ("postgresql://u:marker@h/d?sslmode=marker", "sslmode"),
            ("postgresql://u:marker@h/d?service=x", "service"),
            ("postgresql://u:marker@h/d?target_session_attrs=standby", "only read"),
            ("postgresql://u:marker@h/d?sslcert=x", "sslkey"),
            ("postgresql://u:marker@h/d?sslrootcert=system", "verify-full"),
            ("postgresql://u:marker@h/d?sslmode=verify-full&sslrootcert=/no/such/file", "/no/such/file"),
            ("postgresql://u:marker@h/d?sslnegotiation=direct", "needs TLS"),
            ("postgresql://u:marker@h/d?connect_timeout=soon", "connect_timeout"),
            ("host=h password='marker", "quote"),
        ] {
            let found = parse(text).unwrap_err();
            assert!(found.message.contains(words), "{text}: {}", found.message);
            assert!(found.help.is_some() && !format!("{found:?}").contains("marker"), "{text}: {found:?}");
        }
    }

    #[test]
    fn the_password_does_not_show_itself() {
        let settings = parse("postgresql://u:marker@h/d").unwrap();
        assert!(!format!("{settings:?}").contains("marker"));
    }
}
