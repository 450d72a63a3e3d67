//! Sees to it that a table is there, and fits, before the first row is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::sync::Mutex;
use tracing::{info, warn};
use txconnect_connector_api::SinkError;

use crate::config::{BigQueryConfig, TableChanges};
use crate::error::CallError;
use crate::plan::TablePlan;
use crate::rest::Server;

/// A table that rows are sent to, shared by all lanes.
pub(crate) struct Table {
    /// The name without project and dataset.
    pub(crate) id: String,
    /// `dataset.table`
    pub(crate) name: Arc<str>,
    pub(crate) plan: TablePlan,
    /// The topic that the plan was made for first.
    pub(crate) topic: String,
    ready: AtomicBool,
    looking: Mutex<()>,
}

impl Table {
    pub(crate) fn new(id: String, name: Arc<str>, plan: TablePlan, topic: &str) -> Self {
        Self {
            id,
            name,
            plan,
            topic: topic.to_owned(),
            ready: AtomicBool::new(false),
            looking: Mutex::new(()),
        }
    }

    /// Makes sure that the table exists and fits. Asks the server once, whoever calls, until [`Self::forget`].
    pub(crate) async fn ensure(&self, server: &Server, config: &BigQueryConfig) -> Result<(), SinkError> {
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let _looking = self.looking.lock().await;
        if !self.ready.load(Ordering::Acquire) {
            self.look(server, config).await?;
            self.ready.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// The server does not know the table, or not all of its columns: look again before the next rows.
    pub(crate) fn forget(&self) {
        self.ready.store(false, Ordering::Release);
    }

    async fn look(&self, server: &Server, config: &BigQueryConfig) -> Result<(), SinkError> {
        match self.get(server, config).await {
            Ok(resource) => self.compare(config, &resource),
            Err(error) if error.status() == Some(404) => match config.table_changes {
                TableChanges::Create => self.create(server, config).await,
                TableChanges::None => Err(SinkError::fatal(
                    format!("the table `{}.{}` does not exist", config.project, self.name),
                    format!(
                        "set `table_changes: create`, or create it:\n{}",
                        self.plan.ddl(config, &self.id)
                    ),
                )),
            },
            Err(CallError::Refused(refusal)) if refusal.is_not_implemented() => {
                warn!(table = %self.name, "the server has no call for tables: rows are sent unseen");
                Ok(())
            }
            Err(error) => Err(error.into_sink_error(&format!("looking at the table `{}`", self.name))),
        }
    }

    async fn get(&self, server: &Server, config: &BigQueryConfig) -> Result<Value, CallError> {
        server.get(&["projects", &config.project, "datasets", &config.dataset, "tables", &self.id]).await
    }

    fn compare(&self, config: &BigQueryConfig, resource: &Value) -> Result<(), SinkError> {
        let misfits = self.plan.misfits(config, &self.id, resource);
        if misfits.reasons.is_empty() {
            return Ok(());
        }
        let way_out = if misfits.statements.is_empty() {
            "change the table or the schema, or name another table".to_owned()
        } else {
            format!(
                "change the table, then start again, or name another table:\n{}",
                misfits.statements.join("\n")
            )
        };
        Err(SinkError::fatal(
            format!("the table `{}` does not fit: {}", self.name, misfits.reasons.join("; ")),
            way_out,
        ))
    }

    async fn create(&self, server: &Server, config: &BigQueryConfig) -> Result<(), SinkError> {
        let mut error = match self.insert(server, config).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if error.status() == Some(404) {
            create_dataset(server, config).await?;
            error = match self.insert(server, config).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
        }
        match error {
            // Somebody was faster.
            CallError::Refused(refusal) if refusal.status == 409 => match self.get(server, config).await {
                Ok(resource) => self.compare(config, &resource),
                // Not every server knows a new table at once; the rows will show.
                Err(error) if error.status() == Some(404) => Ok(()),
                Err(error) => Err(error.into_sink_error(&format!("looking at the table `{}`", self.name))),
            },
            CallError::Refused(refusal) if refusal.is_not_implemented() => {
                warn!(table = %self.name, "the server has no call that creates tables: rows are sent unseen");
                Ok(())
            }
            error => Err(error.into_sink_error(&format!("creating the table `{}`", self.name))),
        }
    }

    async fn insert(&self, server: &Server, config: &BigQueryConfig) -> Result<(), CallError> {
        let path = ["projects", &config.project, "datasets", &config.dataset, "tables"];
        server.post(&path, &self.plan.resource(config, &self.id)).await?;
        info!(table = %self.name, "created the table");
        Ok(())
    }
}

async fn create_dataset(server: &Server, config: &BigQueryConfig) -> Result<(), SinkError> {
    let mut resource =
        json!({ "datasetReference": { "projectId": config.project, "datasetId": config.dataset } });
    if let Some(location) = &config.location {
        resource["location"] = location.as_str().into();
    }
    match server.post(&["projects", &config.project, "datasets"], &resource).await {
        Ok(_) => {
            info!(dataset = %config.dataset, "created the dataset");
            Ok(())
        }
        Err(error) => match error.status() {
            // It is there already, or the server has no datasets of its own: the table will show.
            Some(404 | 405 | 409 | 501) => Ok(()),
            _ => Err(error.into_sink_error(&format!("creating the dataset `{}`", config.dataset))),
        },
    }
}
