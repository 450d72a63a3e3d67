//! Where the server is.

use reqwest::Url;
use txconnect_connector_api::SinkError;

use super::{BigQueryConfig, Credentials};

/// The variable by which Google's own clients find an emulator.
pub(crate) const EMULATOR_VARIABLE: &str = "BIGQUERY_EMULATOR_HOST";

/// Google's Storage Write API.
const GOOGLE_STORAGE: &str = "https://bigquerystorage.googleapis.com";

/// Where the server is, for REST calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The address up to and including `/bigquery/v2`, without a slash at the end.
    pub(crate) base: String,
    /// Whether the address is one of this machine.
    pub(crate) loopback: bool,
    encrypted: bool,
}

/// Where the server is, for the Storage Write API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageEndpoint {
    /// Scheme, host and port, without a slash at the end.
    pub uri: String,
    /// Whether the address is one of this machine.
    pub loopback: bool,
    /// Whether the address is an `https` one.
    pub encrypted: bool,
}

impl Endpoint {
    /// Reads an address. Where it has no path of its own, `/bigquery/v2` is added.
    pub(crate) fn parse(address: &str) -> Result<Self, &'static str> {
        let url = read(address)?;
        let mut endpoint = Self::new(&url, url.as_str().trim_end_matches('/').to_owned());
        if url.path() == "/" {
            endpoint.base.push_str("/bigquery/v2");
        }
        Ok(endpoint)
    }

    /// Reads an address that is a host and a port.
    pub(super) fn parse_without_path(address: &str) -> Result<Self, &'static str> {
        let url = read(address)?;
        if url.path() != "/" {
            return Err("has a path, and gRPC has paths of its own");
        }
        Ok(Self::new(&url, url.as_str().trim_end_matches('/').to_owned()))
    }

    fn new(url: &Url, base: String) -> Self {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        Self { base, loopback, encrypted: url.scheme() == "https" }
    }

    /// Google's own address.
    pub(crate) fn google() -> Self {
        let base = "https://bigquery.googleapis.com/bigquery/v2".to_owned();
        Self { base, loopback: false, encrypted: true }
    }

    /// Whether nobody has to say who they are, as long as the configuration does not say otherwise.
    pub(crate) fn is_local_plain(&self) -> bool {
        self.loopback && !self.encrypted
    }

    /// Whether an access token could be read on its way.
    pub(crate) fn sends_tokens_in_clear(&self, credentials: Option<&Credentials>) -> bool {
        !self.encrypted && !self.loopback && credentials != Some(&Credentials::None)
    }
}

impl StorageEndpoint {
    fn google() -> Self {
        Self { uri: GOOGLE_STORAGE.to_owned(), loopback: false, encrypted: true }
    }

    /// Whether an access token could be read on its way.
    pub fn sends_tokens_in_clear(&self, credentials: &Credentials) -> bool {
        !self.encrypted && !self.loopback && *credentials != Credentials::None
    }
}

impl BigQueryConfig {
    /// Where the Storage Write API is: `storage_endpoint`; else host and port of `endpoint`, or of the variable
    /// `BIGQUERY_EMULATOR_HOST` of `environment`, where that is an `http` address; else Google's.
    ///
    /// # Errors
    /// [`SinkError::Fatal`] where the address is not one.
    pub fn storage_endpoint(
        &self,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<StorageEndpoint, SinkError> {
        let wrong = |name: &str, address: &str, why: &str| {
            SinkError::fatal(format!("`{name}: {address}` {why}"), "write it as `http://host:port`")
        };
        if let Some(address) = &self.storage_endpoint {
            let endpoint = Endpoint::parse_without_path(address)
                .map_err(|why| wrong("storage_endpoint", address, why))?;
            let Endpoint { base: uri, loopback, encrypted } = endpoint;
            return Ok(StorageEndpoint { uri, loopback, encrypted });
        }
        let (name, address) = match &self.endpoint {
            Some(address) => ("endpoint", address.clone()),
            None => match environment(EMULATOR_VARIABLE).filter(|host| !host.is_empty()) {
                Some(host) if host.contains("://") => (EMULATOR_VARIABLE, host),
                Some(host) => (EMULATOR_VARIABLE, format!("http://{host}")),
                None => return Ok(StorageEndpoint::google()),
            },
        };
        let url = read(&address).map_err(|why| wrong(name, &address, why))?;
        if url.scheme() == "https" {
            return Ok(StorageEndpoint::google());
        }
        let endpoint = Endpoint::new(&url, url.origin().ascii_serialization());
        Ok(StorageEndpoint { uri: endpoint.base, loopback: endpoint.loopback, encrypted: false })
    }
}

fn read(address: &str) -> Result<Url, &'static str> {
    let url = Url::parse(address).map_err(|_| "is not an address")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is neither an http nor an https address");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password; credentials have their own key");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("holds more than a host, a port and a path");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn an_address_without_a_path_gets_the_one_of_the_api() {
        for (address, base, loopback) in [
            ("http://localhost:9050", "http://localhost:9050/bigquery/v2", true),
            ("http://[::1]:9050/", "http://[::1]:9050/bigquery/v2", true),
            ("https://example.com/own/v2/", "https://example.com/own/v2", false),
        ] {
            let endpoint = Endpoint::parse(address).unwrap();
            assert_eq!((endpoint.base.as_str(), endpoint.loopback), (base, loopback));
        }
        assert!(Endpoint::parse("http://user:secret@host").is_err());
    }

    #[test]
    fn the_storage_address_follows_an_emulator_and_is_googles_otherwise() {
        for (storage, rest, variable, uri) in [
            (None, None, None, GOOGLE_STORAGE),
            (None, None, Some(""), GOOGLE_STORAGE),
            (None, None, Some("localhost:9050"), "http://localhost:9050"),
            (None, None, Some("http://[::1]:9050/"), "http://[::1]:9050"),
            (None, Some("http://127.0.0.1:1/bigquery/v2"), Some("other:1"), "http://127.0.0.1:1"),
            (None, Some("https://bigquery-own.p.googleapis.com"), Some("other:1"), GOOGLE_STORAGE),
            (Some("https://own:444/"), Some("http://127.0.0.1:1"), None, "https://own:444"),
            (Some("http://localhost:2"), None, Some("other:1"), "http://localhost:2"),
        ] {
            let mut config = json!({ "project": "p", "dataset": "d" });
            if let Some(storage) = storage {
                config["storage_endpoint"] = storage.into();
            }
            if let Some(rest) = rest {
                config["endpoint"] = rest.into();
            }
            let config: BigQueryConfig = serde_json::from_value(config).unwrap();
            let endpoint = config.storage_endpoint(&|_| variable.map(str::to_owned)).unwrap();
            assert_eq!(endpoint.uri, uri);
            assert_eq!(endpoint.encrypted, uri.starts_with("https"));
            assert_eq!(endpoint.loopback, !endpoint.encrypted, "{uri}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        let config: BigQueryConfig =
            serde_json::from_value(json!({ "project": "p", "dataset": "d" })).unwrap();
        let error = config.storage_endpoint(&|_| Some("ftp://here".to_owned())).unwrap_err();
        assert!(error.to_string().contains(EMULATOR_VARIABLE), "{error}");
    }

    proptest! {
        #[test]
        fn no_address_makes_the_reader_panic(address in any::<String>()) {
            let _ = Endpoint::parse(&address);
            let _ = Endpoint::parse_without_path(&address);
        }
    }
}
