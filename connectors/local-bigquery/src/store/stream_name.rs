//! Names of tables and streams as they stand in requests.

use std::fmt;

use super::TableName;

/// The id of the stream that every table has.
const DEFAULT: &str = "_default";

/// A stream's name in its parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamName {
    pub(crate) table: TableName,
    pub(crate) stream: StreamId,
}

/// Which of a table's streams.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StreamId {
    /// The one that needs not be made.
    Default,
    /// One that was made, by its id.
    Made(String),
}

/// `projects/{project}/datasets/{dataset}/tables/{table}`
pub(crate) fn parse_table(name: &str) -> Option<TableName> {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        ["projects", project, "datasets", dataset, "tables", table]
            if ![*project, *dataset, *table].contains(&"") =>
        {
            Some(TableName::new(project, dataset, table))
        }
        _ => None,
    }
}

/// `projects/{project}/datasets/{dataset}/tables/{table}/streams/{stream}`; the default stream also without `streams`, as
/// Google's examples write it.
pub(crate) fn parse_stream(name: &str) -> Option<StreamName> {
    let (rest, stream) = name.rsplit_once('/')?;
    let (table, streams) = match rest.strip_suffix("/streams") {
        Some(table) => (table, true),
        None => (rest, false),
    };
    let stream = match stream {
        DEFAULT => StreamId::Default,
        "" => return None,
        id if streams => StreamId::Made(id.to_owned()),
        _ => return None,
    };
    Some(StreamName { table: parse_table(table)?, stream })
}

/// A table's name as requests write it.
pub(crate) fn table_path(table: &TableName) -> String {
    let TableName { dataset, table } = table;
    format!("projects/{}/datasets/{}/tables/{table}", dataset.project, dataset.dataset)
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = match &self.stream {
            StreamId::Default => DEFAULT,
            StreamId::Made(id) => id,
        };
        write!(f, "{}/streams/{id}", table_path(&self.table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_name_comes_apart_and_together_again() {
        for name in
            ["projects/p/datasets/d/tables/t/streams/Cic", "projects/p/datasets/d/tables/t/streams/_default"]
        {
            assert_eq!(parse_stream(name).unwrap().to_string(), name);
        }
        let short = parse_stream("projects/p/datasets/d/tables/t/_default").unwrap();
        assert_eq!(short.stream, StreamId::Default);
        for wrong in [
            "",
            "t",
            "projects/p/datasets/d/tables/t",
            "projects/p/datasets/d/tables/t/streams/",
            "projects/p/datasets/d/tables//streams/x",
            "projects/p/datasets/d/tables/t/x",
            "projects/p/datasets/d/tables/t/streams/x/y",
        ] {
            assert_eq!(parse_stream(wrong), None, "{wrong}");
        }
    }
}
