//! Lists cut into pages.

use serde_json::{Value as Json, json};

use super::exchange::Call;
use crate::error::ApiError;
use crate::types::render::{TimestampForm, cells, weight};
use crate::types::{Column, Row};

/// A page of rows stays about below this many bytes, as BigQuery's do.
const PAGE_BYTES: usize = 10 * 1024 * 1024;

/// Where a page begins and how many entries it may have.
pub(super) struct Page {
    start: usize,
    most: usize,
}

impl Page {
    /// From `maxResults`, `pageToken` and `startIndex`.
    pub(super) fn of(call: &Call<'_>) -> Result<Page, ApiError> {
        let most = call.number("maxResults")?;
        let start = match call.parameter("pageToken") {
            Some(token) => read_token(token)?,
            None => call.number("startIndex")?.unwrap_or(0),
        };
        Ok(Page { start, most: most.unwrap_or(usize::MAX) })
    }

    /// The first page.
    pub(super) fn first(most: Option<usize>) -> Page {
        Page { start: 0, most: most.unwrap_or(usize::MAX) }
    }

    /// The entries of a list on this page, and the token of the next.
    pub(super) fn cut<T>(&self, entries: impl Iterator<Item = T>) -> (Vec<T>, Option<String>) {
        let mut rest = entries.skip(self.start);
        let page: Vec<T> = rest.by_ref().take(self.most).collect();
        let next = rest.next().map(|_| token(self.start.saturating_add(page.len())));
        (page, next)
    }

    /// Rows in cells, and the token of the next page.
    pub(super) fn rows(
        &self,
        rows: &[Row],
        columns: &[Column],
        form: TimestampForm,
    ) -> (Vec<Json>, Option<String>) {
        let rest = rows.get(self.start..).unwrap_or_default();
        let mut bytes = 0_usize;
        let mut page = Vec::new();
        for row in rest.iter().take(self.most) {
            bytes = bytes.saturating_add(row.iter().map(weight).sum());
            if bytes > PAGE_BYTES && !page.is_empty() {
                break;
            }
            page.push(cells(row, columns, form));
        }
        let next = (page.len() < rest.len()).then(|| token(self.start + page.len()));
        (page, next)
    }
}

/// How the caller wants timestamps.
pub(super) fn timestamp_form(call: &Call<'_>) -> TimestampForm {
    let micros = call.flag("formatOptions.useInt64Timestamp");
    if micros { TimestampForm::Micros } else { TimestampForm::Seconds }
}

fn token(start: usize) -> String {
    format!("from-{start}")
}

fn read_token(token: &str) -> Result<usize, ApiError> {
    let start = token.strip_prefix("from-").and_then(|start| start.parse().ok());
    start.ok_or_else(|| ApiError::invalid("Invalid page token: take it from the page before."))
}

/// Adds the token under a name, where there is a next page.
pub(super) fn add_token(document: &mut Json, name: &str, token: Option<String>) {
    if let (Some(token), Json::Object(document)) = (token, document) {
        document.insert(name.to_owned(), json!(token));
    }
}
