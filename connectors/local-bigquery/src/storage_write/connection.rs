//! What an `AppendRows` connection remembers: its stream, the writer's schema, and what was said of the table.

use std::collections::BTreeMap;
use std::sync::Arc;

use gcp_bigquery_client::google::cloud::bigquery::storage::v1::row_error::RowErrorCode;
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::{RowError, TableSchema};
use prost_types::DescriptorProto;

use super::messages::{AppendRequest, rows};
use super::refusal::Refusal;
use super::schema::table_schema;
use super::unary::stream_of;
use crate::faults::Conditions;
use crate::state::State;
use crate::store::stream_name::{StreamId, StreamName};
use crate::store::streams::{StreamError, WriterView};
use crate::store::table::{Columns, NewContent};
use crate::types::proto::{DecodedRow, WriterSchema, decode_row};
use crate::types::render;

/// The most bytes of messages about wrong rows in one answer; further rows are not named.
const ROW_ERROR_BYTES: usize = 1024 * 1024;

/// The most top-level columns of a table that takes changes (documented).
const MOST_KEYED_COLUMNS: usize = 2_000;

/// A connection.
pub(super) struct Connection {
    state: Arc<State>,
    /// The routing header.
    routing: Option<String>,
    current: Option<Target>,
    /// Whether the connection has changed its table, so that every request must name one.
    switched: bool,
    descriptor: Option<Arc<DescriptorProto>>,
    fitted: Option<Fitted>,
    /// Whether its rows carry changes, once there were any.
    changes: Option<bool>,
    /// The tables it has written to, by identity: a table that was made anew is another one.
    seen: BTreeMap<StreamName, u64>,
}

/// Where a request's rows go.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) name: StreamName,
    /// The name as the client wrote it.
    pub(super) given: String,
}

/// A schema that was held against a table.
struct Fitted {
    descriptor: Arc<DescriptorProto>,
    view: WriterView,
    schema: Arc<WriterSchema>,
}

/// What became of an append.
#[derive(Debug)]
pub(super) struct Appended {
    /// The offset of the first row; the default stream has none.
    pub(super) offset: Option<i64>,
    /// The table's schema, where it has changed on this connection.
    pub(super) updated_schema: Option<TableSchema>,
}

impl Connection {
    pub(super) fn new(state: Arc<State>, routing: Option<String>) -> Connection {
        Connection {
            state,
            routing,
            current: None,
            switched: false,
            descriptor: None,
            fitted: None,
            changes: None,
            seen: BTreeMap::new(),
        }
    }

    /// Where a request's rows go. The errors are those of a request that BigQuery would not even look into.
    pub(super) fn target(&mut self, request: &AppendRequest) -> Result<Target, Refusal> {
        if request.arrow_rows.is_some() {
            return Err(Refusal::invalid("The local BigQuery takes rows in protobuf only, not in Arrow."));
        }
        let descriptor = request
            .proto_rows
            .as_ref()
            .and_then(|data| data.writer_schema.as_ref()?.proto_descriptor.as_ref());
        let target = match (&self.current, request.write_stream.as_str()) {
            (None, "") => return Err(Refusal::invalid("The first request must name a write_stream.")),
            (None, given) => {
                let target = Target { name: stream_of(given)?, given: given.to_owned() };
                check_routing(self.routing.as_deref(), &target)?;
                target
            }
            (Some(_), "") if self.switched => {
                return Err(Refusal::invalid(
                    "The connection has changed its destination: every request must name its write_stream.",
                ));
            }
            (Some(current), "") => current.clone(),
            (Some(current), given) if given == current.given => current.clone(),
            (Some(current), given) => {
                let target = Target { name: stream_of(given)?, given: given.to_owned() };
                let default =
                    [&current.name, &target.name].iter().all(|name| name.stream == StreamId::Default);
                if !default {
                    return Err(Refusal::invalid(
                        "A connection can change its destination between default streams only.",
                    ));
                }
                if descriptor.is_none() {
                    return Err(Refusal::invalid(
                        "A request that changes the destination must carry a writer_schema.",
                    ));
                }
                self.switched = true;
                target
            }
        };
        match descriptor {
            Some(descriptor) => self.descriptor = Some(Arc::new(descriptor.clone())),
            None if self.descriptor.is_none() => {
                return Err(Refusal::invalid("The first request must carry a writer_schema."));
            }
            None => {}
        }
        self.current = Some(target.clone());
        Ok(target)
    }

    /// Carries an append out.
    pub(super) fn append(
        &mut self,
        target: &Target,
        request: &AppendRequest,
        conditions: &Conditions,
    ) -> Result<Appended, Refusal> {
        let state = Arc::clone(&self.state);
        let now_ms = state.clock.now_ms();
        let message = request.row_bytes();
        let (count, whole) = count_rows(message);
        let bytes = u64::try_from(message.len()).unwrap_or(u64::MAX);
        state.traffic().append(&target.name.to_string(), Some(&target.name.table), count, bytes);
        let view = {
            let mut store = state.store();
            let Conditions { schema_lag_ms, not_found_until_ms, .. } = *conditions;
            let view = store.writer_view(&target.name, schema_lag_ms, not_found_until_ms, now_ms)?;
            store.check_append(&target.name, request.offset, now_ms)?;
            view
        };
        self.check_same_table(target, view.identity)?;
        if count == 0 {
            return Err(Refusal::invalid("The request has no rows."));
        }
        if !whole {
            return Err(Refusal::invalid("The rows of the request are not a valid proto message."));
        }
        let entity = target.name.to_string();
        let (content, updated_schema) = if state.count_only {
            (NewContent::Counted { rows: count, bytes }, None)
        } else {
            // The rows are read while the store is unlocked, so that connections do not wait for each other's.
            let (schema, updated_schema) = self.fit(&view, &entity)?;
            let decoded = self.decode(&schema, &view.columns, message, conditions, &entity)?;
            (NewContent::Rows(Arc::clone(&view.columns), decoded), updated_schema)
        };
        if !conditions.row_errors.is_empty() {
            let scripted = scripted_errors(conditions, count);
            if !scripted.is_empty() {
                return Err(Refusal::rows(scripted, &entity));
            }
        }
        let offset = state.store().append(&target.name, request.offset, content, view.identity, now_ms)?;
        Ok(Appended { offset, updated_schema })
    }

    /// A connection stays with the table it has begun to write to, even where another one has its name now.
    fn check_same_table(&mut self, target: &Target, identity: u64) -> Result<(), Refusal> {
        match self.seen.get(&target.name) {
            Some(seen) if *seen != identity => {
                Err(StreamError::TableNotFound(target.name.table.clone()).into())
            }
            Some(_) => Ok(()),
            None => {
                self.seen.insert(target.name.clone(), identity);
                Ok(())
            }
        }
    }

    /// The writer's schema held against the table, and the table's schema where it has changed since the last time.
    fn fit(
        &mut self,
        view: &WriterView,
        entity: &str,
    ) -> Result<(Arc<WriterSchema>, Option<TableSchema>), Refusal> {
        let Some(descriptor) = self.descriptor.clone() else {
            return Err(Refusal::invalid("The first request must carry a writer_schema."));
        };
        let mut changed = None;
        if let Some(fitted) = &self.fitted
            && fitted.view.identity == view.identity
        {
            let same_columns = Arc::ptr_eq(&fitted.view.columns, &view.columns);
            let same_descriptor =
                Arc::ptr_eq(&fitted.descriptor, &descriptor) || *fitted.descriptor == *descriptor;
            if same_columns && same_descriptor && fitted.view.keyed == view.keyed {
                return Ok((Arc::clone(&fitted.schema), None));
            }
            changed = (!same_columns).then(|| table_schema(&view.columns));
        }
        let schema = WriterSchema::new(&descriptor, &view.columns, view.keyed)
            .map_err(|problem| Refusal::schema(problem, entity))?;
        if schema.has_changes() && view.columns.len() > MOST_KEYED_COLUMNS {
            return Err(Refusal::invalid(format!(
                "A table that takes changes has at most {MOST_KEYED_COLUMNS} top-level columns. Entity: {entity}"
            )));
        }
        let schema = Arc::new(schema);
        self.fitted = Some(Fitted { descriptor, view: view.clone(), schema: Arc::clone(&schema) });
        Ok((schema, changed))
    }

    fn decode(
        &mut self,
        schema: &WriterSchema,
        columns: &Columns,
        message: &[u8],
        conditions: &Conditions,
        entity: &str,
    ) -> Result<Vec<DecodedRow>, Refusal> {
        let mut decoded = Vec::new();
        let mut errors = Vec::new();
        let mut error_bytes = 0_usize;
        // Rows with a change and rows without one do not go together on a connection.
        let changes = *self.changes.get_or_insert(schema.has_changes());
        for (index, row) in rows(message).enumerate() {
            let row = match row {
                Ok(row) => decode_row(schema, columns, row),
                Err(_) => Err("The row is not a valid proto message.".to_owned()),
            };
            let row = row.and_then(|row| check_row(row, changes, columns, conditions));
            match row {
                Ok(row) => decoded.push(row),
                Err(sentence) if error_bytes < ROW_ERROR_BYTES => {
                    error_bytes += sentence.len() + 32;
                    errors.push(row_error(index, sentence));
                }
                Err(_) => {}
            }
        }
        if errors.is_empty() { Ok(decoded) } else { Err(Refusal::rows(errors, entity)) }
    }
}

/// How many rows a `ProtoRows` message has, and whether it can be read to its end.
fn count_rows(message: &[u8]) -> (u64, bool) {
    rows(message).fold((0, true), |(count, whole), row| (count + 1, whole && row.is_ok()))
}

fn row_error(index: usize, message: String) -> RowError {
    let index = i64::try_from(index).unwrap_or(i64::MAX);
    RowError { index, code: RowErrorCode::FieldsError.into(), message }
}

fn check_row(
    row: DecodedRow,
    changes: bool,
    columns: &Columns,
    conditions: &Conditions,
) -> Result<DecodedRow, String> {
    if row.change.is_some() != changes {
        return Err("The given value is not a valid CHANGE_TYPE.".to_owned());
    }
    for (field, value) in &conditions.rejected_values {
        let index = columns.iter().position(|column| column.is_named(field));
        let found = index.and_then(|index| Some((row.row.get(index)?, columns.get(index)?)));
        if found.is_some_and(|(found, column)| render::json(found, &column.kind) == *value) {
            return Err(format!("Field {field}: the value is rejected by the fault script."));
        }
    }
    Ok(row)
}

fn scripted_errors(conditions: &Conditions, rows: u64) -> Vec<RowError> {
    let there = |index: usize| u64::try_from(index).is_ok_and(|index| index < rows);
    let errors = conditions.row_errors.iter().filter(|(index, _)| there(*index));
    errors.map(|(index, reason)| row_error(*index, reason.clone())).collect()
}

/// The routing header names the stream, or the location of its project.
fn check_routing(routing: Option<&str>, target: &Target) -> Result<(), Refusal> {
    let refused = |what: &str| {
        Err(Refusal::invalid(format!(
            "{what} the routing header x-goog-request-params: write_stream=<stream_name>. Entity: {}",
            target.name
        )))
    };
    let Some(routing) = routing else {
        return refused("The request lacks");
    };
    let project = format!("projects/{}/locations/", target.name.table.dataset.project);
    let routed = routing.split('&').filter_map(|parameter| parameter.split_once('=')).any(|(key, value)| {
        let value = percent_decoded(value);
        match key {
            "write_stream" => value.as_deref() == Some(target.given.as_bytes()),
            "write_location" => value.is_some_and(|value| value.starts_with(project.as_bytes())),
            _ => false,
        }
    });
    if routed { Ok(()) } else { refused("The stream of the request is not the one in") }
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routing_header_names_the_stream_plainly_or_encoded_or_the_location() {
        let given = "projects/p/datasets/d/tables/t/streams/_default";
        let target = Target { name: stream_of(given).unwrap(), given: given.to_owned() };
        let check = |routing: &str| check_routing(Some(routing), &target).is_ok();
        assert!(check(&format!("write_stream={given}")));
        assert!(check("write_stream=projects%2Fp%2Fdatasets%2fd%2Ftables%2Ft%2Fstreams%2F_default"));
        assert!(check(&format!("other=1&write_stream={given}")));
        assert!(check("write_location=projects/p/locations/eu"));
        for wrong in [
            "",
            "write_stream=",
            "write_stream=projects/p",
            "name=x",
            "write_location=projects/q/locations/eu",
            "write_stream=%zz%",
        ] {
            assert!(!check(wrong), "{wrong}");
        }
        assert!(check_routing(None, &target).is_err());
    }
}
