//! Scripted faults: what goes wrong, on which call, how often.

mod script;
mod what;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::store::TableName;

pub(crate) use script::{Conditions, End, Script};
pub use what::{Closing, QuotaReason, StatusCode, What};
pub(crate) use what::{USUAL_IDLE, inactive_for};

/// A method of the interface, named as in BigQuery's reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Method {
    /// `datasets.get`
    #[serde(rename = "datasets.get")]
    DatasetsGet,
    /// `datasets.list`
    #[serde(rename = "datasets.list")]
    DatasetsList,
    /// `datasets.insert`
    #[serde(rename = "datasets.insert")]
    DatasetsInsert,
    /// `datasets.delete`
    #[serde(rename = "datasets.delete")]
    DatasetsDelete,
    /// `tables.get`
    #[serde(rename = "tables.get")]
    TablesGet,
    /// `tables.list`
    #[serde(rename = "tables.list")]
    TablesList,
    /// `tables.insert`
    #[serde(rename = "tables.insert")]
    TablesInsert,
    /// `tables.patch`
    #[serde(rename = "tables.patch")]
    TablesPatch,
    /// `tables.update`
    #[serde(rename = "tables.update")]
    TablesUpdate,
    /// `tables.delete`
    #[serde(rename = "tables.delete")]
    TablesDelete,
    /// `tabledata.insertAll`
    #[serde(rename = "tabledata.insertAll")]
    InsertAll,
    /// `tabledata.list`
    #[serde(rename = "tabledata.list")]
    TabledataList,
    /// `jobs.query`
    #[serde(rename = "jobs.query")]
    JobsQuery,
    /// `jobs.insert`
    #[serde(rename = "jobs.insert")]
    JobsInsert,
    /// `jobs.getQueryResults`
    #[serde(rename = "jobs.getQueryResults")]
    JobsGetQueryResults,
    /// `BigQueryWrite.CreateWriteStream`
    CreateWriteStream,
    /// `BigQueryWrite.AppendRows`; every request of a connection counts as a call.
    AppendRows,
    /// `BigQueryWrite.GetWriteStream`
    GetWriteStream,
    /// `BigQueryWrite.FinalizeWriteStream`
    FinalizeWriteStream,
    /// `BigQueryWrite.BatchCommitWriteStreams`
    BatchCommitWriteStreams,
    /// `BigQueryWrite.FlushRows`
    FlushRows,
}

/// Why a script of faults cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// The text is no JSON, or no fault.
    #[error("not a fault or a list of faults: {0}; a fault is {{\"method\": …, \"what\": …}}")]
    Shape(#[from] serde_json::Error),
    /// The status is not that of an error.
    #[error("a fault's status must be 400 to 599, not {0}")]
    Status(u16),
    /// The chance is no probability.
    #[error("a fault's chance must be above 0 and at most 1, not {0}")]
    Chance(f64),
}

/// One scripted fault.
///
/// As JSON: `{"method": "tabledata.insertAll", "table": "orders", "what": {"error": {"status": 503, "reason":
/// "backendError", "message": "try later"}}, "times": 2, "after": 1}`.
///
/// Of the faults that end a call ([`What::ReplyLost`], [`What::Cut`], [`What::Error`], [`What::Html`], [`What::Quota`],
/// [`What::Status`], [`What::StreamClosed`]) the first that matches in the order of the script applies, so that a
/// script reads as a sequence.
/// The others add up, and are not used up by a call that an earlier fault answers before it reaches the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The method it strikes.
    pub method: Method,
    /// The table it strikes, as `table` or `dataset.table`; absent: every call of the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// What goes wrong.
    pub what: What,
    /// How many calls it strikes; absent: every one until the faults are cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// How many matching calls pass before the first one is struck.
    #[serde(default)]
    pub after: u32,
    /// The probability with which it strikes a call that it could strike, above 0 and at most 1; absent: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chance: Option<f64>,
    /// Where the chances begin: the same seed gives the same sequence of calls that are struck.
    #[serde(default)]
    pub seed: u64,
}

impl Fault {
    /// A fault that strikes every call of a method.
    pub fn new(method: Method, what: What) -> Fault {
        Fault { method, table: None, what, times: None, after: 0, chance: None, seed: 0 }
    }

    /// Strikes only the next `times` matching calls.
    #[must_use]
    pub fn times(self, times: u32) -> Fault {
        Fault { times: Some(times), ..self }
    }

    /// Lets `after` matching calls pass first.
    #[must_use]
    pub fn after(self, after: u32) -> Fault {
        Fault { after, ..self }
    }

    /// Strikes only calls for this table, given as `table` or `dataset.table`.
    #[must_use]
    pub fn table(self, table: &str) -> Fault {
        Fault { table: Some(table.to_owned()), ..self }
    }

    /// Strikes a call that it could strike only with a probability; the seed decides which.
    #[must_use]
    pub fn chance(self, chance: f64, seed: u64) -> Fault {
        Fault { chance: Some(chance), seed, ..self }
    }

    /// Reads a script: one fault or a list of them, as JSON.
    ///
    /// # Errors
    /// [`ScriptError`] where the text is no such JSON, a status is none of an error or a chance is no probability.
    pub fn parse_script(json: &[u8]) -> Result<Vec<Fault>, ScriptError> {
        let script: Json = serde_json::from_slice(json)?;
        let faults: Vec<Fault> = match script {
            Json::Array(faults) => {
                faults.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?
            }
            fault => vec![serde_json::from_value(fault)?],
        };
        for fault in &faults {
            if let What::Error { status, .. } | What::Html { status } = fault.what
                && !(400..=599).contains(&status)
            {
                return Err(ScriptError::Status(status));
            }
            if let Some(chance) = fault.chance
                && !(chance > 0.0 && chance <= 1.0)
            {
                return Err(ScriptError::Chance(chance));
            }
        }
        Ok(faults)
    }

    /// Whether chance lets it strike now; every question moves the sequence on.
    fn comes_up(&mut self) -> bool {
        let Some(chance) = self.chance else {
            return true;
        };
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        // 53 bits are what a float holds exactly.
        let drawn = (scrambled(self.seed) >> 11) as f64 / (1_u64 << 53) as f64;
        drawn < chance
    }

    fn matches(&self, method: Method, table: Option<&TableName>) -> bool {
        self.method == method
            && match (&self.table, table) {
                (None, _) => true,
                (Some(wanted), Some(name)) => name.is_called(wanted),
                (Some(_), None) => false,
            }
    }
}

/// Numbers that look drawn at random, one for each input (the finisher of `SplitMix64`).
fn scrambled(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
