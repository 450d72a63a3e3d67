//! What the server keeps: datasets, tables, rows and finished queries. It knows nothing of HTTP or gRPC.

pub(crate) mod insert_ids;
pub(crate) mod jobs;
mod keys;
pub(crate) mod resource;
pub(crate) mod stream_name;
pub(crate) mod streams;
pub(crate) mod table;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde_json::{Map, Value as Json, json};

use crate::error::ApiError;
use jobs::Jobs;
use streams::Streams;
use table::Table;

/// A dataset's full name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DatasetName {
    pub(crate) project: String,
    pub(crate) dataset: String,
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.project, self.dataset)
    }
}

/// A table's full name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TableName {
    pub(crate) dataset: DatasetName,
    pub(crate) table: String,
}

impl TableName {
    pub(crate) fn new(project: &str, dataset: &str, table: &str) -> TableName {
        let dataset = DatasetName { project: project.to_owned(), dataset: dataset.to_owned() };
        TableName { dataset, table: table.to_owned() }
    }
}

impl TableName {
    /// Whether this is what somebody means by `table` or `dataset.table`.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        match name.split_once('.') {
            Some((dataset, table)) => dataset == self.dataset.dataset && table == self.table,
            None => name == self.table,
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.dataset, self.table)
    }
}

/// A dataset: its resource as it was given, and its tables.
#[derive(Debug)]
pub(crate) struct Dataset {
    resource: Map<String, Json>,
    created_ms: u64,
    serial: u64,
    tables: BTreeMap<String, Table>,
}

/// Everything the server holds.
#[derive(Debug, Default)]
pub(crate) struct Store {
    auto_create_datasets: bool,
    datasets: BTreeMap<DatasetName, Dataset>,
    pub(crate) jobs: Jobs,
    streams: Streams,
    /// Counts changes, for etags that never repeat.
    serial: u64,
}

impl Store {
    pub(crate) fn new(auto_create_datasets: bool) -> Store {
        Store { auto_create_datasets, ..Store::default() }
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn existing(&self, name: &DatasetName) -> Result<&Dataset, ApiError> {
        self.datasets.get(name).ok_or_else(|| ApiError::not_found("Dataset", name))
    }

    fn existing_mut(&mut self, name: &DatasetName) -> Result<&mut Dataset, ApiError> {
        self.datasets.get_mut(name).ok_or_else(|| ApiError::not_found("Dataset", name))
    }

    /// Creates a dataset from its resource, as `datasets.insert`.
    pub(crate) fn create_dataset(
        &mut self,
        name: &DatasetName,
        resource: Map<String, Json>,
        now_ms: u64,
    ) -> Result<Json, ApiError> {
        resource::check_id("dataset", &name.dataset)?;
        let serial = self.next_serial();
        match self.datasets.entry(name.clone()) {
            Entry::Occupied(_) => Err(ApiError::duplicate("Dataset", name)),
            Entry::Vacant(place) => {
                let dataset = Dataset { resource, created_ms: now_ms, serial, tables: BTreeMap::new() };
                Ok(place.insert(dataset).document(name))
            }
        }
    }

    /// A dataset's resource, as `datasets.get`.
    pub(crate) fn dataset(&self, name: &DatasetName) -> Result<Json, ApiError> {
        Ok(self.existing(name)?.document(name))
    }

    /// The datasets of a project in the order of their names.
    pub(crate) fn datasets(&self, project: &str) -> impl Iterator<Item = Json> {
        self.datasets
            .iter()
            .filter(move |(name, _)| name.project == project)
            .map(|(name, dataset)| dataset.document(name))
    }

    /// Deletes a dataset; one that holds tables only with `delete_contents`.
    pub(crate) fn delete_dataset(
        &mut self,
        name: &DatasetName,
        delete_contents: bool,
    ) -> Result<(), ApiError> {
        if !delete_contents && !self.existing(name)?.tables.is_empty() {
            let message = format!("Dataset {name} is still in use");
            return Err(ApiError::new(400, "resourceInUse", message));
        }
        self.expire_streams(|stream| stream.table.dataset == *name);
        match self.datasets.remove(name) {
            Some(_) => Ok(()),
            None => Err(ApiError::not_found("Dataset", name)),
        }
    }

    /// Creates a table from its resource, as `tables.insert`.
    pub(crate) fn create_table(
        &mut self,
        name: &TableName,
        resource: Map<String, Json>,
        now_ms: u64,
    ) -> Result<Json, ApiError> {
        resource::check_id("table", &name.table)?;
        let table = Table::new(resource, self.next_serial(), now_ms)?;
        if self.auto_create_datasets && !self.datasets.contains_key(&name.dataset) {
            self.create_dataset(&name.dataset, Map::new(), now_ms)?;
        }
        match self.existing_mut(&name.dataset)?.tables.entry(name.table.clone()) {
            Entry::Occupied(_) => Err(ApiError::duplicate("Table", name)),
            Entry::Vacant(place) => Ok(place.insert(table).document(name)),
        }
    }

    /// A table.
    pub(crate) fn table(&self, name: &TableName) -> Result<&Table, ApiError> {
        self.existing(&name.dataset)?
            .tables
            .get(&name.table)
            .ok_or_else(|| ApiError::not_found("Table", name))
    }

    /// A table to write to.
    pub(crate) fn table_mut(&mut self, name: &TableName) -> Result<&mut Table, ApiError> {
        let tables = &mut self.existing_mut(&name.dataset)?.tables;
        tables.get_mut(&name.table).ok_or_else(|| ApiError::not_found("Table", name))
    }

    /// The tables of a dataset in the order of their names.
    pub(crate) fn tables_of(
        &self,
        name: &DatasetName,
    ) -> Result<impl Iterator<Item = (&String, &Table)>, ApiError> {
        Ok(self.existing(name)?.tables.iter())
    }

    /// Every table with its name.
    pub(crate) fn all_tables(&self) -> impl Iterator<Item = (&DatasetName, &String, &Table)> {
        self.datasets
            .iter()
            .flat_map(|(name, dataset)| dataset.tables.iter().map(move |(id, table)| (name, id, table)))
    }

    /// Changes a table's resource: with `replace` to the whole of `change` (`tables.update`), else only what `change`
    /// names (`tables.patch`). `if_match` is the etag the caller expects.
    pub(crate) fn change_table(
        &mut self,
        name: &TableName,
        change: Map<String, Json>,
        replace: bool,
        if_match: Option<&str>,
        now_ms: u64,
    ) -> Result<Json, ApiError> {
        let serial = self.next_serial();
        let table = self.table_mut(name)?;
        if if_match.is_some_and(|etag| etag != "*" && etag != table.etag()) {
            return Err(ApiError::new(412, "conditionNotMet", "Precondition check failed."));
        }
        table.change(name, change, replace, serial, now_ms)?;
        Ok(table.document(name))
    }

    /// Deletes a table and makes it again with the same resource, without rows.
    pub(crate) fn recreate_table(&mut self, name: &TableName, now_ms: u64) -> Result<(), ApiError> {
        let resource = self.table(name)?.resource().clone();
        self.delete_table(name)?;
        self.create_table(name, resource, now_ms).map(drop)
    }

    /// Deletes a table with its rows and streams.
    pub(crate) fn delete_table(&mut self, name: &TableName) -> Result<(), ApiError> {
        self.expire_streams(|stream| stream.table == *name);
        match self.existing_mut(&name.dataset)?.tables.remove(&name.table) {
            Some(_) => Ok(()),
            None => Err(ApiError::not_found("Table", name)),
        }
    }
}

impl Dataset {
    fn document(&self, name: &DatasetName) -> Json {
        let mut document = self.resource.clone();
        resource::set_all(
            &mut document,
            json!({
                "kind": "bigquery#dataset",
                "etag": resource::etag(self.serial),
                "id": name.to_string(),
                "datasetReference": { "projectId": name.project, "datasetId": name.dataset },
                "creationTime": self.created_ms.to_string(),
                "lastModifiedTime": self.created_ms.to_string(),
            }),
        );
        document.entry("location").or_insert_with(|| "US".into());
        Json::Object(document)
    }
}
