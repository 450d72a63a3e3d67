//! Where access tokens come from.
//!
//! Tokens are kept until they are about to expire, also those of the metadata server. Nothing of a key
//! appears in a message.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gcp_bigquery_client::auth::Authenticator;
use gcp_bigquery_client::error::BQError;
use gcp_bigquery_client::yup_oauth2::authenticator::{
    ApplicationDefaultCredentialsTypes, DefaultAuthenticator,
};
use gcp_bigquery_client::yup_oauth2::authorized_user::AuthorizedUserSecret;
use gcp_bigquery_client::yup_oauth2::error::SendError;
use gcp_bigquery_client::yup_oauth2::{
    self, ApplicationDefaultCredentialsAuthenticator, ApplicationDefaultCredentialsFlowOpts,
    AuthorizedUserAuthenticator, ServiceAccountAuthenticator, ServiceAccountKey,
};
use serde::Deserialize;

use crate::config::Credentials;

const SCOPES: [&str; 1] = ["https://www.googleapis.com/auth/bigquery"];

/// How long a token may take to arrive.
const TOKEN_DEADLINE: Duration = Duration::from_secs(30);

/// Why there is no access token and waiting does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CredentialsError {
    #[error("the credentials file `{}` cannot be read: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("the credentials file `{}` is not {wanted}: {place}", path.display())]
    Malformed { path: PathBuf, wanted: &'static str, place: String },
    #[error("the credentials file `{}` is of a kind that is not supported", path.display())]
    Unsupported { path: PathBuf },
    #[error("the private key in `{}` cannot be used", path.display())]
    BadKey { path: PathBuf },
    #[error("no credentials: {0}")]
    NoneFound(String),
    #[error("the authorization server refuses the credentials ({0})")]
    Refused(String),
}

impl CredentialsError {
    /// The way out.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "check the path and that the file may be read by this user",
            Self::Malformed { .. } | Self::BadKey { .. } => {
                "download the key of the service account again, as JSON, and do not edit it"
            }
            Self::Unsupported { .. } => {
                "use the key of a service account or the file of `gcloud auth application-default login`"
            }
            Self::NoneFound(_) => {
                "set `credentials: {service_account_file: …}`, or GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`; for an emulator set `credentials: none`"
            }
            Self::Refused(_) => {
                "check that the account exists, that its key has not been deleted and that this machine's clock is right"
            }
        }
    }
}

/// Where tokens come from, found out without touching a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// No tokens: an emulator.
    Anonymous,
    /// The key of a service account.
    ServiceAccount(PathBuf),
    /// A file that says itself what it is.
    AnyFile(PathBuf),
    /// The file if it exists, else the metadata server.
    FileOrMetadata { file: Option<PathBuf>, metadata_host: Option<String> },
}

impl TokenSource {
    /// Follows the configuration and the environment.
    pub(crate) fn new(
        credentials: &Credentials,
        base_dir: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        match credentials {
            Credentials::None => Self::Anonymous,
            Credentials::ServiceAccountFile(path) => Self::ServiceAccount(base_dir.join(path)),
            Credentials::ApplicationDefault => match environment("GOOGLE_APPLICATION_CREDENTIALS") {
                Some(path) if !path.is_empty() => Self::AnyFile(path.into()),
                _ => Self::FileOrMetadata {
                    file: environment("HOME").map(|home| {
                        Path::new(&home).join(".config/gcloud/application_default_credentials.json")
                    }),
                    metadata_host: environment("GCE_METADATA_HOST").filter(|host| !host.is_empty()),
                },
            },
        }
    }

    /// Reads the file, if there is one, and prepares to ask for tokens.
    pub(crate) async fn open(&self) -> Result<Arc<dyn AccessTokens>, CredentialsError> {
        let tokens = match self {
            Self::Anonymous => return Ok(Arc::new(Anonymous)),
            Self::ServiceAccount(path) => service_account(path, &read(path).await?).await?,
            Self::AnyFile(path) => any_file(path, &read(path).await?).await?,
            Self::FileOrMetadata { file, metadata_host } => {
                let found = match file {
                    Some(path) => match tokio::fs::read(path).await {
                        Ok(text) => Some((path, text)),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                        Err(error) => return Err(unreadable(path, &error)),
                    },
                    None => None,
                };
                match found {
                    Some((path, text)) => any_file(path, &text).await?,
                    None => metadata_server(metadata_host.as_deref()).await?,
                }
            }
        };
        Ok(Arc::new(tokens))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> CredentialsError {
    CredentialsError::Unreadable { path: path.to_owned(), reason: error.kind().to_string() }
}

async fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    tokio::fs::read(path).await.map_err(|error| unreadable(path, &error))
}

fn parse<'a, T: Deserialize<'a>>(
    path: &Path,
    text: &'a [u8],
    wanted: &'static str,
) -> Result<T, CredentialsError> {
    // The reader's own words may quote the file.
    serde_json::from_slice(text).map_err(|error| CredentialsError::Malformed {
        path: path.to_owned(),
        wanted,
        place: if error.is_data() {
            format!("a field is missing or wrong (line {})", error.line())
        } else {
            format!("broken JSON at line {}, column {}", error.line(), error.column())
        },
    })
}

async fn service_account(path: &Path, text: &[u8]) -> Result<Tokens, CredentialsError> {
    let key: ServiceAccountKey = parse(path, text, "the key of a service account")?;
    let tokens = ServiceAccountAuthenticator::builder(key)
        .build()
        .await
        .map_err(|_| CredentialsError::BadKey { path: path.to_owned() })?;
    Ok(Tokens { account: tokens, from_metadata: false, had_one: Arc::default() })
}

async fn any_file(path: &Path, text: &[u8]) -> Result<Tokens, CredentialsError> {
    #[derive(Deserialize)]
    struct Kind {
        r#type: String,
    }
    let kind: Kind = parse(path, text, "a credentials file")?;
    match kind.r#type.as_str() {
        "service_account" => service_account(path, text).await,
        "authorized_user" => {
            let secret: AuthorizedUserSecret = parse(path, text, "a file written by gcloud")?;
            let tokens = AuthorizedUserAuthenticator::builder(secret)
                .build()
                .await
                .map_err(|_| CredentialsError::BadKey { path: path.to_owned() })?;
            Ok(Tokens { account: tokens, from_metadata: false, had_one: Arc::default() })
        }
        _ => Err(CredentialsError::Unsupported { path: path.to_owned() }),
    }
}

async fn metadata_server(host: Option<&str>) -> Result<Tokens, CredentialsError> {
    let options = ApplicationDefaultCredentialsFlowOpts {
        metadata_url: host
            .map(|host| format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token")),
    };
    let tokens = match ApplicationDefaultCredentialsAuthenticator::builder(options).await {
        ApplicationDefaultCredentialsTypes::InstanceMetadata(builder) => builder.build().await,
        ApplicationDefaultCredentialsTypes::ServiceAccount(builder) => builder.build().await,
    };
    let tokens = tokens.map_err(|_| no_metadata_server())?;
    Ok(Tokens { account: tokens, from_metadata: true, had_one: Arc::default() })
}

fn no_metadata_server() -> CredentialsError {
    CredentialsError::NoneFound(NOWHERE.to_owned())
}

const NOWHERE: &str =
    "GOOGLE_APPLICATION_CREDENTIALS is not set, gcloud has written no file and there is no metadata server";

/// Gives access tokens, kept until they expire, and new ones where a server does not take the one that is kept.
#[async_trait]
pub(crate) trait AccessTokens: Authenticator {
    /// A token that was not given before, where there are tokens at all.
    async fn renewed_token(&self) -> Result<String, BQError>;
}

/// Sends no real token.
#[derive(Clone)]
struct Anonymous;

#[async_trait]
impl Authenticator for Anonymous {
    async fn access_token(&self) -> Result<String, BQError> {
        Ok("anonymous".to_owned())
    }
}

#[async_trait]
impl AccessTokens for Anonymous {
    async fn renewed_token(&self) -> Result<String, BQError> {
        self.access_token().await
    }
}

/// Tokens of an account, kept until they expire.
#[derive(Clone)]
struct Tokens {
    account: DefaultAuthenticator,
    from_metadata: bool,
    had_one: Arc<AtomicBool>,
}

impl Tokens {
    async fn token(&self, renewed: bool) -> Result<String, BQError> {
        let token = async {
            if renewed {
                self.account.force_refreshed_token(&SCOPES).await
            } else {
                self.account.token(&SCOPES).await
            }
        };
        let token = tokio::time::timeout(TOKEN_DEADLINE, token)
            .await
            .unwrap_or(Err(yup_oauth2::Error::HttpClientError(SendError::Timeout)));
        match token {
            Ok(token) => {
                self.had_one.store(true, Ordering::Relaxed);
                token.token().map(str::to_owned).ok_or(BQError::NoToken)
            }
            // A machine that never had a metadata server will not get one by waiting.
            Err(yup_oauth2::Error::HttpError(_) | yup_oauth2::Error::HttpClientError(_))
                if self.from_metadata && !self.had_one.load(Ordering::Relaxed) =>
            {
                Err(BQError::YupAuthError(yup_oauth2::Error::UserError(NOWHERE.to_owned())))
            }
            Err(error) => Err(BQError::YupAuthError(error)),
        }
    }
}

#[async_trait]
impl Authenticator for Tokens {
    async fn access_token(&self) -> Result<String, BQError> {
        self.token(false).await
    }
}

#[async_trait]
impl AccessTokens for Tokens {
    async fn renewed_token(&self) -> Result<String, BQError> {
        self.token(true).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn the_places_are_tried_in_googles_order() {
        let default = Credentials::ApplicationDefault;
        let named =
            |name: &str| (name == "GOOGLE_APPLICATION_CREDENTIALS").then(|| "/etc/key.json".to_owned());
        let base = Path::new("/pipelines");
        assert_eq!(TokenSource::new(&default, base, &named), TokenSource::AnyFile("/etc/key.json".into()));
        let home = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        assert_eq!(
            TokenSource::new(&default, base, &home),
            TokenSource::FileOrMetadata {
                file: Some("/home/me/.config/gcloud/application_default_credentials.json".into()),
                metadata_host: None
            }
        );
        let own = Credentials::ServiceAccountFile("key.json".into());
        assert_eq!(
            TokenSource::new(&own, base, &named),
            TokenSource::ServiceAccount("/pipelines/key.json".into())
        );
        assert_eq!(TokenSource::new(&Credentials::None, base, &nothing), TokenSource::Anonymous);
    }

    async fn error_of(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        std::fs::write(&path, text).unwrap();
        let error = TokenSource::AnyFile(path).open().await.err().unwrap();
        assert!(!error.hint().is_empty());
        error.to_string()
    }

    #[tokio::test]
    async fn a_broken_key_is_named_by_its_path_and_never_shown() {
        let secret = "hunter2-private";
        let key = |private: &str| {
            serde_json::json!({
                "type": "service_account", "client_email": "a@b", "token_uri": "https://example.com",
                "private_key": private
            })
            .to_string()
        };
        for (text, says) in [
            (key(secret), "the private key"),
            (format!("{{\"type\": \"service_account\", \"private_key\": \"{secret}\"}}"), "is missing"),
            (format!("{{\"type\": \"authorized_user\", \"refresh_token\": \"{secret}\"}}"), "is missing"),
            (format!("{{\"type\": \"external_account\", \"secret\": \"{secret}\"}}"), "not supported"),
            (format!("\"{secret}\""), "is not a credentials file"),
            (secret.to_owned(), "broken JSON"),
        ] {
            let error = error_of(&text).await;
            assert!(error.contains(says) && error.contains("key.json"), "{error}");
            assert!(!error.contains(secret), "{error}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_an_error_with_a_way_out() {
        let error = TokenSource::ServiceAccount("/nowhere/key.json".into()).open().await.err().unwrap();
        assert!(matches!(error, CredentialsError::Unreadable { .. }));
        assert!(error.to_string().contains("/nowhere/key.json"));
    }

    #[tokio::test]
    async fn a_machine_without_any_credentials_says_so_instead_of_waiting() {
        // Port 1 of this machine refuses connections.
        let source =
            TokenSource::FileOrMetadata { file: None, metadata_host: Some("127.0.0.1:1".to_owned()) };
        let error = source.open().await.unwrap().access_token().await.unwrap_err();
        assert!(matches!(error, BQError::YupAuthError(yup_oauth2::Error::UserError(_))), "{error:?}");
    }
}
