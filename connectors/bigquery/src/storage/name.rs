//! Names of write streams: as BigQuery writes them, and as Kafka keeps them.
//!
//! BigQuery's `projects/P/datasets/D/tables/T/streams/S` becomes `P.D.T/S`. A project may hold dots, datasets and tables
//! do not, and none holds a slash, so the short form has one reading.

use txconnect_connector_api::StreamName;

/// No name of BigQuery's comes near it: 30 characters of project, 1,024 each of dataset and table, 100 of stream.
const MAX_BYTES: usize = 2_500;

/// The name of a stream in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamPath<'a> {
    project: &'a str,
    dataset: &'a str,
    table: &'a str,
    stream: &'a str,
}

/// A name that is not one of ours. It is not repeated: whoever wrote it may have written anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not the name of a write stream")]
pub(super) struct NotAStream;

impl<'a> StreamPath<'a> {
    /// Reads BigQuery's form.
    pub(super) fn from_server(name: &'a str) -> Result<Self, NotAStream> {
        let mut parts = name.split('/');
        let mut next = || parts.next().ok_or(NotAStream);
        let (labels, values) =
            ([next()?, next()?, next()?, next()?, next()?, next()?, next()?, next()?], parts.next());
        let ["projects", project, "datasets", dataset, "tables", table, "streams", stream] = labels else {
            return Err(NotAStream);
        };
        if values.is_some() {
            return Err(NotAStream);
        }
        Self { project, dataset, table, stream }.checked()
    }

    /// Reads the short form.
    pub(super) fn from_kafka(name: &'a str) -> Result<Self, NotAStream> {
        let (table, stream) = name.split_once('/').ok_or(NotAStream)?;
        let (dataset, table) = table.rsplit_once('.').ok_or(NotAStream)?;
        let (project, dataset) = dataset.rsplit_once('.').ok_or(NotAStream)?;
        Self { project, dataset, table, stream }.checked()
    }

    fn checked(self) -> Result<Self, NotAStream> {
        let parts = [self.project, self.dataset, self.table, self.stream];
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let fine = bytes <= MAX_BYTES
            && parts.iter().all(|part| {
                !part.is_empty() && !part.contains(|c: char| c == '/' || c.is_control() || c.is_whitespace())
            })
            && !self.dataset.contains('.')
            && !self.table.contains('.');
        if fine { Ok(self) } else { Err(NotAStream) }
    }

    /// BigQuery's form.
    pub(super) fn for_server(&self) -> String {
        let Self { project, dataset, table, stream } = self;
        format!("projects/{project}/datasets/{dataset}/tables/{table}/streams/{stream}")
    }

    /// The short form.
    pub(super) fn for_kafka(&self) -> StreamName {
        let Self { project, dataset, table, stream } = self;
        StreamName(format!("{project}.{dataset}.{table}/{stream}").into())
    }

    /// `dataset.table`
    pub(super) fn table(&self) -> String {
        format!("{}.{}", self.dataset, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_short_for_kafka_and_whole_for_the_server() {
        let name = "projects/example.com:my-project/datasets/shop/tables/orders/streams/CiQ2ZDQ_x-=";
        let path = StreamPath::from_server(name).unwrap();
        assert_eq!(&*path.for_kafka().0, "example.com:my-project.shop.orders/CiQ2ZDQ_x-=");
        assert_eq!(path.table(), "shop.orders");
        assert_eq!(StreamPath::from_kafka(&path.for_kafka().0).unwrap().for_server(), name);
    }

    #[test]
    fn what_is_not_a_stream_is_refused() {
        for name in [
            "",
            "/",
            "p.d.t",
            "p.d.t/",
            "p.d/s",
            ".d.t/s",
            "p..t/s",
            "p.d./s",
            "p.d.t/s/s",
            "p.d.t/\n",
            "p.d.t/a b",
        ] {
            assert_eq!(StreamPath::from_kafka(name), Err(NotAStream), "{name}");
        }
        for name in [
            "p.d.t/s",
            "projects/p/datasets/d/tables/t/streams",
            "projects/p/datasets/d/tables/t/streams/",
            "projects/p/datasets/d/tables/t/streams/s/x",
            "projects/p/datasets/d.e/tables/t/streams/s",
            "projects/p/locations/d/tables/t/streams/s",
        ] {
            assert_eq!(StreamPath::from_server(name), Err(NotAStream), "{name}");
        }
        assert_eq!(StreamPath::from_kafka(&format!("p.d.t/{}", "s".repeat(3_000))), Err(NotAStream));
    }

    proptest! {
        #[test]
        fn every_name_that_is_read_is_written_the_same(
            project in "[a-z0-9.:-]{1,30}", dataset in "[A-Za-z0-9_]{1,20}",
            table in "[A-Za-z0-9_-]{1,20}", stream in "[A-Za-z0-9_=-]{1,60}",
        ) {
            let name = format!("projects/{project}/datasets/{dataset}/tables/{table}/streams/{stream}");
            let short = StreamPath::from_server(&name).unwrap().for_kafka();
            prop_assert_eq!(StreamPath::from_kafka(&short.0).unwrap().for_server(), name);
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in any::<String>()) {
            if let Ok(path) = StreamPath::from_kafka(&text) {
                prop_assert_eq!(&*path.for_kafka().0, text.as_str());
            }
            let _ = StreamPath::from_server(&text);
        }
    }
}
