//! What `#[transform]` makes of a function: a component that exports `batches`.

use std::cell::OnceCell;
use std::rc::Rc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::columns::Batch;
use crate::rows::{Rows, RowsOfRecord};
use crate::{Error, Record, Result};

/// The interface, generated from its WIT.
#[cfg(target_arch = "wasm32")]
#[allow(missing_docs, unsafe_code, clippy::pedantic, clippy::all, reason = "generated code")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit/1.0.0",
        world: "batch-transform",
        pub_export_macro: true,
        export_macro_name: "export_component",
        default_bindings_module: "::txconnect_transform::component::bindings",
    });
}

/// A transform of whole batches: for those who want to go through a batch column by column. [`export!`](crate::export)
/// makes it the transform of its crate; `#[transform]` above a function does both.
///
/// ```
/// use txconnect_transform::{Batch, BatchTransform, NoConfig, Rows, Wants, export};
///
/// /// Drops records without a value.
/// struct DropTombstones;
///
/// impl BatchTransform for DropTombstones {
///     type Config = NoConfig;
///     const NAME: &'static str = env!("CARGO_PKG_NAME");
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///     const WANTS: Wants = Wants::NOTHING;
///
///     fn new(_: NoConfig) -> Result<Self, String> {
///         Ok(Self)
///     }
///
///     fn transform(&self, batch: &Batch, rows: &mut Rows) -> Result<(), String> {
///         (0..batch.len()).filter(|&record| batch.value(record).is_some()).for_each(|record| rows.keep(record));
///         Ok(())
///     }
/// }
///
/// export!(DropTombstones);
/// # fn main() {}
/// ```
pub trait BatchTransform: Sized + 'static {
    /// What it is given by the pipeline file.
    type Config: Settings;
    /// Its name.
    const NAME: &'static str;
    /// Its version.
    const VERSION: &'static str;
    /// What it wants to see.
    const WANTS: Wants;

    /// Takes its config.
    ///
    /// # Errors
    /// Why the config does not fit; the pipeline does not start then.
    fn new(config: Self::Config) -> Result<Self, String>;

    /// Transforms a batch. A record without a row and without a failure is filtered out.
    ///
    /// # Errors
    /// Nothing of the batch could be transformed; it is tried again in smaller parts.
    fn transform(&self, batch: &Batch, rows: &mut Rows) -> Result<(), String>;
}

/// What `#[transform]` makes of a function.
#[doc(hidden)]
pub trait Function: 'static {
    /// What it is given by the pipeline file.
    type Config: Settings;
    /// Its name.
    const NAME: &'static str;
    /// Its version.
    const VERSION: &'static str;
    /// What it wants to see.
    const WANTS: Wants;

    /// Transforms one record.
    ///
    /// # Errors
    /// What the function says.
    fn call(record: Record, config: &Self::Config, rows: &mut RowsOfRecord<'_>) -> Result<()>;
}

/// A function, record by record over a batch.
#[doc(hidden)]
#[derive(Debug)]
pub struct Each<F: Function> {
    config: F::Config,
}

impl<F: Function> BatchTransform for Each<F> {
    type Config = F::Config;
    const NAME: &'static str = F::NAME;
    const VERSION: &'static str = F::VERSION;
    const WANTS: Wants = F::WANTS;

    fn new(config: F::Config) -> Result<Self, String> {
        Ok(Self { config })
    }

    fn transform(&self, batch: &Batch, rows: &mut Rows) -> Result<(), String> {
        for source in 0..batch.len() {
            if !F::WANTS.tombstones && batch.value(source).is_none() {
                rows.keep(source);
                continue;
            }
            let record = Record::of(rows.batch(), source);
            if let Err(error) = F::call(record, &self.config, &mut RowsOfRecord { rows, source }) {
                rows.fail(source, error);
            }
        }
        Ok(())
    }
}

/// What a transform wants to see beside topic and value. What is not wanted is not there, and costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "four independent wishes")]
pub struct Wants {
    /// Keys.
    pub keys: bool,
    /// Headers.
    pub headers: bool,
    /// Partitions, offsets and timestamps.
    pub positions: bool,
    /// Records without a value, where the transform is a function; otherwise they pass by untouched.
    pub tombstones: bool,
}

impl Wants {
    /// Topic and value alone.
    pub const NOTHING: Self = Self { keys: false, headers: false, positions: false, tombstones: false };
}

/// A config: a struct below `#[config]`, or [`NoConfig`].
#[diagnostic::on_unimplemented(message = "`{Self}` is no config", note = "put `#[config]` above the struct")]
pub trait Settings: Sized + 'static {
    /// Its JSON Schema as text; empty where there is none.
    fn schema() -> String;

    /// Reads it.
    ///
    /// # Errors
    /// It does not follow the schema, in words for the user.
    fn read(json: &str) -> Result<Self, String>;
}

/// The config of a function that takes none.
#[derive(Debug)]
pub struct NoConfig;

impl Settings for NoConfig {
    fn schema() -> String {
        String::new()
    }

    fn read(_: &str) -> Result<Self, String> {
        Ok(Self)
    }
}

impl<T: DeserializeOwned + JsonSchema + 'static> Settings for T {
    fn schema() -> String {
        // A schema is plain JSON, which can always be written.
        serde_json::to_string(&schemars::schema_for!(T)).unwrap_or_default()
    }

    fn read(json: &str) -> Result<Self, String> {
        // A config of which nothing has to be said may be left out.
        let json = if json == "null" { "{}" } else { json };
        serde_json::from_str(json)
            .map_err(|error| Error::from(error).message().replacen("the value", "the config", 1))
    }
}

/// The one transform of a component, once it has its config.
#[doc(hidden)]
#[derive(Debug)]
pub struct Started<T>(OnceCell<T>);

impl<T: BatchTransform> Started<T> {
    /// Nothing yet.
    #[must_use]
    pub const fn not_yet() -> Self {
        Self(OnceCell::new())
    }

    /// Reads the config.
    ///
    /// # Errors
    /// It does not fit.
    pub fn init(&self, json: &str) -> Result<(), String> {
        let transform = T::new(T::Config::read(json)?)?;
        self.0.set(transform).map_err(|_| "the transform has been started before".to_owned())
    }

    /// Transforms a batch.
    ///
    /// # Errors
    /// It was not started, or says itself why not.
    pub fn transform(&self, mut batch: Batch) -> Result<Rows, String> {
        let transform = self.0.get().ok_or("the transform was not given its config")?;
        batch.index_headers();
        let batch = Rc::new(batch);
        let mut rows = Rows::new(Rc::clone(&batch), T::WANTS);
        transform.transform(&batch, &mut rows)?;
        Ok(rows)
    }
}

/// Translates between the interface's types and ours; only there in a component.
#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
pub mod border {
    use super::bindings::exports::txconnect::transform::batches as wit;
    use super::bindings::txconnect::transform::description::{Description, Needs};
    use super::{Batch, BatchTransform, Rows, Settings};
    use crate::columns::{Column, Headers};

    fn into(column: wit::Column) -> Column {
        Column { data: column.data, ends: column.ends, nulls: column.nulls }
    }

    fn from(column: Column) -> wit::Column {
        wit::Column { data: column.data, ends: column.ends, nulls: column.nulls }
    }

    /// What `describe` answers.
    #[must_use]
    pub fn describe<T: BatchTransform>() -> Description {
        let wanted = |wanted: bool, part: Needs| if wanted { part } else { Needs::empty() };
        let needs = wanted(T::WANTS.keys, Needs::KEYS)
            | wanted(T::WANTS.headers, Needs::HEADERS)
            | wanted(T::WANTS.positions, Needs::POSITIONS);
        let (name, version) = (T::NAME.to_owned(), T::VERSION.to_owned());
        Description { name, version, needs, config_schema: T::Config::schema() }
    }

    /// The batch that `transform` is given.
    #[must_use]
    pub fn batch(batch: wit::Batch) -> Batch {
        let headers = batch.headers;
        Batch {
            topics: batch.topics,
            topic_of: batch.topic_of,
            partitions: batch.partitions,
            offsets: batch.offsets,
            timestamps: batch.timestamps,
            keys: into(batch.keys),
            values: into(batch.values),
            headers: Headers {
                counts: headers.counts,
                names: into(headers.names),
                values: into(headers.values),
            },
            first_header: Vec::new(),
        }
    }

    /// What `transform` answers.
    #[must_use]
    pub fn output(rows: Rows) -> wit::Output {
        let topics = rows.topics;
        wit::Output {
            sources: rows.sources,
            keys: rows.keys.map(from),
            values: rows.values.map(from),
            routing: rows.topic_of.map(|topic_of| wit::Routing { topics, topic_of }),
            headers: rows.headers.map(|headers| wit::Headers {
                counts: headers.counts,
                names: from(headers.names),
                values: from(headers.values),
            }),
            failures: rows
                .failures
                .into_iter()
                .map(|(record, error)| {
                    let (code, message) = error.into_parts();
                    wit::Failure { record, code, message }
                })
                .collect(),
        }
    }
}

/// Makes a [`BatchTransform`] the transform of its crate. Elsewhere than in a component it does nothing.
#[macro_export]
macro_rules! export {
    ($transform:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::component::bindings::exports::txconnect::transform::batches as wit;

            struct Component;

            ::std::thread_local! {
                static STARTED: $crate::component::Started<$transform> =
                    const { $crate::component::Started::not_yet() };
            }

            impl wit::Guest for Component {
                fn describe() -> wit::Description {
                    $crate::component::border::describe::<$transform>()
                }

                fn init(config: ::std::string::String) -> ::std::result::Result<(), ::std::string::String> {
                    STARTED.with(|started| started.init(&config))
                }

                fn transform(batch: wit::Batch) -> ::std::result::Result<wit::Output, ::std::string::String> {
                    let batch = $crate::component::border::batch(batch);
                    let rows = STARTED.with(|started| started.transform(batch))?;
                    ::std::result::Result::Ok($crate::component::border::output(rows))
                }
            }

            $crate::component::bindings::export_component!(
                Component with_types_in $crate::component::bindings
            );
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            // Used by the component alone.
            let _ = <$transform as $crate::BatchTransform>::transform;
        };
    };
}

#[cfg(test)]
mod tests;
