//! The connection to BigQuery and the calls on datasets and tables.
//!
//! Rows and queries go through the client library. Tables and datasets do not: its table model refuses
//! columns of newer types, knows no precision, and forgets the status of an answer that is not JSON.

use std::sync::Arc;
use std::time::Duration;

use gcp_bigquery_client::Client;
use gcp_bigquery_client::auth::Authenticator;
use gcp_bigquery_client::client_builder::ClientBuilder;
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::config::Endpoint;
use crate::credentials::{AccessTokens, TokenSource};
use crate::error::{CallError, Refusal};

/// How long it may take until a server has taken the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Google closes idle connections after some minutes; ours are given up before.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// A BigQuery server and the way to say who we are. Opens its first connection with the first call.
pub(crate) struct Server {
    endpoint: Endpoint,
    source: TokenSource,
    http: reqwest::Client,
    session: OnceCell<Session>,
}

/// What calls need once the credentials have been read.
pub(crate) struct Session {
    pub(crate) client: Client,
    tokens: Arc<dyn AccessTokens>,
}

impl Session {
    /// Who we are.
    pub(crate) fn tokens(&self) -> &dyn AccessTokens {
        &*self.tokens
    }
}

impl Server {
    /// Prepares calls that end within `timeout` each.
    pub(crate) fn new(
        endpoint: Endpoint,
        source: TokenSource,
        timeout: Duration,
    ) -> Result<Self, reqwest::Error> {
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .timeout(timeout)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true);
        if endpoint.loopback {
            // The environment's proxy is for the way out of this machine.
            http = http.no_proxy();
        }
        Ok(Self { endpoint, source, http: http.build()?, session: OnceCell::new() })
    }

    pub(crate) async fn session(&self) -> Result<&Session, CallError> {
        self.session
            .get_or_try_init(|| async {
                let tokens = self.source.open().await?;
                let client = ClientBuilder::new()
                    .with_v2_base_url(self.endpoint.base.clone())
                    .with_client(self.http.clone())
                    .build_from_authenticator(Arc::clone(&tokens) as Arc<dyn Authenticator>)
                    .await?;
                Ok(Session { client, tokens })
            })
            .await
    }

    pub(crate) async fn get(&self, path: &[&str]) -> Result<Value, CallError> {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &[&str], body: &Value) -> Result<Value, CallError> {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn call(&self, method: Method, path: &[&str], body: Option<&Value>) -> Result<Value, CallError> {
        let mut url = Url::parse(&self.endpoint.base)
            .map_err(|_| CallError::NoAnswer("the endpoint is not an address".to_owned()))?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        let token = self.session().await?.tokens.access_token().await?;
        let mut request = self.http.request(method, url).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.json().await?);
        }
        let retry_after = response
            .headers()
            .get(reqwest::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        // The status says enough where the body cannot be read.
        let body = response.json().await.unwrap_or(Value::Null);
        Err(CallError::Refused(refusal(status, &body, retry_after)))
    }
}

fn refusal(status: StatusCode, body: &Value, retry_after: Option<Duration>) -> Refusal {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let reasons = body.pointer("/error/errors").and_then(Value::as_array);
    Refusal {
        status: status.as_u16().into(),
        reasons: reasons
            .into_iter()
            .flatten()
            .map(|error| text(error.get("reason")))
            .filter(|reason| !reason.is_empty())
            .collect(),
        message: text(body.pointer("/error/message")),
        retry_after,
    }
}
