//! A `url` → everything that a connection needs.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};
use txconnect_connector_api::{ConfigProblem, Secret};

use crate::address::{self, Parameters};
use crate::parameters::{Reader, address_problem, problem};
use crate::tls::{TlsMode, TlsSettings};

/// Longest wait for one host where `connect_timeout` does not say: the next host is to have its turn.
const LONGEST_USUAL_CONNECT: Duration = Duration::from_secs(10);

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

/// When a silent connection is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keepalive {
    pub(crate) idle: Duration,
    pub(crate) interval: Duration,
    pub(crate) probes: u32,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::USUAL_KEEPALIVE;

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
            ("postgresql://u:p?marker=1@h/d", "unknown name"),
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
