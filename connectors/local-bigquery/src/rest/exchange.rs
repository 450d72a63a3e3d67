//! The way every call takes: read the body, check the credentials, meet the scripted faults, do the work, answer.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, Request};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::body;
use crate::error::ApiError;
use crate::faults::{Conditions, End, Method};
use crate::state::{BadCredentials, State};
use crate::store::{DatasetName, TableName};
use crate::traffic::{Running, Traffic};

/// Marks a response that is not sent: the connection closes instead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionCut;

/// What a call is about, for faults and counters.
#[derive(Debug)]
pub(super) enum Target {
    /// No one table.
    NoTable,
    /// A table named in the path.
    Table(TableName),
    /// A table of this dataset, named by the resource in the body.
    InBody(DatasetName),
}

impl Target {
    fn table(self, body: &[u8]) -> Option<TableName> {
        match self {
            Target::NoTable => None,
            Target::Table(name) => Some(name),
            Target::InBody(dataset) => {
                // A body that names no table is refused when the work begins.
                let resource: Json = serde_json::from_slice(body).ok()?;
                let table = resource.get("tableReference")?.get("tableId")?.as_str()?.to_owned();
                Some(TableName { dataset, table })
            }
        }
    }
}

impl State {
    /// Takes a call through all its steps; `work` does what the method is for.
    pub(super) async fn serve(
        &self,
        method: Method,
        target: Target,
        request: Request,
        work: impl FnOnce(&Call<'_>) -> Result<Reply, ApiError>,
    ) -> Response {
        let (head, sent) = request.into_parts();
        let body = match body::read(&head.headers, sent).await {
            Ok(body) => body,
            Err(refused) => return refusal(&refused),
        };
        let table = target.table(&body);
        let _running: Running = Traffic::enter(self.shared_traffic(), method, table.as_ref());
        if let Err(refused) = check_credentials(self, &head.headers) {
            return refusal(&refused);
        }
        let verdict = self.script().strike(method, table.as_ref());
        if verdict.conditions.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(verdict.conditions.delay_ms)).await;
        }
        let lost = match verdict.end {
            None => false,
            Some(End::ReplyLost) => true,
            Some(End::Cut) => return cut(),
            Some(End::Refused(refused)) => return refusal(&refused),
            Some(End::Html(status)) => return html(status),
            Some(End::Status { code, message, .. }) => return refusal(&ApiError::of_status(code, message)),
        };
        let parameters =
            Query::try_from_uri(&head.uri).map_or_else(|_| HashMap::new(), |Query(parameters)| parameters);
        let call = Call {
            state: self,
            headers: &head.headers,
            parameters,
            body,
            conditions: verdict.conditions,
            now_ms: self.clock.now_ms(),
        };
        let answer = match call.table_is_new(table.as_ref()) {
            Ok(()) => work(&call),
            Err(not_yet) => Err(not_yet),
        };
        if lost {
            return cut();
        }
        answer.map_or_else(|refused| refusal(&refused), Reply::into_response)
    }
}

/// BigQuery's answer to a caller without the right credentials.
fn check_credentials(state: &State, headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok());
    state.authenticate(given).map_err(|bad| {
        let (reason, what) = match bad {
            BadCredentials::Wrong => ("authError", "Request had invalid authentication credentials."),
            BadCredentials::Missing => ("required", "Request is missing required authentication credential."),
        };
        ApiError::new(401, reason, format!("{what} Expected OAuth 2 access token."))
    })
}

/// A call on its way.
pub(super) struct Call<'a> {
    pub(super) state: &'a State,
    pub(super) headers: &'a HeaderMap,
    parameters: HashMap<String, String>,
    pub(super) body: Bytes,
    pub(super) conditions: Conditions,
    pub(super) now_ms: u64,
}

impl Call<'_> {
    /// A query parameter; an empty one counts as absent.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A query parameter that is a truth value. Clients write it as their language does: `true`, `True`.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.parameter(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// A query parameter that is a number.
    pub(super) fn number(&self, name: &str) -> Result<Option<usize>, ApiError> {
        let number =
            |text: &str| text.parse().map_err(|_| ApiError::invalid(format!("Invalid value for {name}.")));
        self.parameter(name).map(number).transpose()
    }

    /// The body as JSON of a known shape. The error names the place, never what stands there.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map_err(|wrong| {
            let place = format!("line {}, column {}", wrong.line(), wrong.column());
            match wrong.classify() {
                serde_json::error::Category::Data => ApiError::invalid(format!(
                    "Invalid JSON payload received: unknown name or wrong type at {place}."
                )),
                _ => ApiError::new(
                    400,
                    "parseError",
                    format!("Invalid JSON payload received: no JSON at {place}."),
                ),
            }
        })
    }

    /// The body as a resource.
    pub(super) fn resource(&self) -> Result<Map<String, Json>, ApiError> {
        self.json()
    }

    /// Fails while a scripted fault hides a table that was only just created.
    fn table_is_new(&self, name: Option<&TableName>) -> Result<(), ApiError> {
        let hidden_ms = self.conditions.not_found_until_ms;
        let Some(name) = name.filter(|_| hidden_ms > 0) else {
            return Ok(());
        };
        match self.state.store().table(name) {
            Ok(table) if self.now_ms.saturating_sub(table.created_ms()) < hidden_ms => {
                Err(ApiError::not_found("Table", name))
            }
            _ => Ok(()),
        }
    }
}

/// A good answer.
pub(super) enum Reply {
    /// A JSON document.
    Document(Json),
    /// Nothing: status 204.
    Nothing,
    /// Text with a status, as only the foreign emulator sends.
    Plain(u16, String),
}

impl Reply {
    fn into_response(self) -> Response {
        match self {
            Reply::Document(document) => {
                respond(200, "application/json; charset=UTF-8", document.to_string())
            }
            Reply::Nothing => respond(204, "application/json; charset=UTF-8", String::new()),
            Reply::Plain(status, text) => respond(status, "text/plain; charset=utf-8", text),
        }
    }
}

/// BigQuery's error document as a response.
pub(super) fn refusal(error: &ApiError) -> Response {
    let mut response = respond(error.status, "application/json; charset=UTF-8", error.body().to_string());
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

pub(super) fn respond(status: u16, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    // A script may hold any number; one that is no status becomes the server's own failure.
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn html(status: u16) -> Response {
    let page = format!(
        "<!DOCTYPE html>\n<html lang=en>\n<title>Error {status} (Server Error)!!1</title>\n<p>The server encountered a \
         temporary error and could not complete your request.\n</html>\n"
    );
    respond(status, "text/html; charset=UTF-8", page)
}

fn cut() -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(ConnectionCut);
    response
}
