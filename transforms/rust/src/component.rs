//! What `#[transform]` makes of a function: a component that exports `batches`.

use std::cell::RefCell;
use std::rc::Rc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::columns::{Batch, Rows, check};
use crate::{Error, Record, Result};

/// The interface, generated from its WIT.
#[cfg(target_arch = "wasm32")]
#[allow(missing_docs, unsafe_code, clippy::pedantic, clippy::all, reason = "generated code")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit/1.0.0",
        world: "batch-transform",
        pub_export_macro: true,
        export_macro_name: "export",
        default_bindings_module: "::txconnect_transform::component::bindings",
    });
}

/// A function with what it wants to see.
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
    fn call(record: Record, config: &Self::Config) -> Result<Vec<Record>>;
}

/// What a function wants to see beside topic and value.
#[derive(Clone, Copy, Debug)]
pub struct Wants {
    /// Keys.
    pub keys: bool,
    /// Headers.
    pub headers: bool,
    /// Partitions, offsets and timestamps.
    pub positions: bool,
    /// Records without a value.
    pub tombstones: bool,
}

/// A config.
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
        serde_json::from_str(json).map_err(|error| Error::from(error).message().to_owned())
    }
}

/// Transforms a batch: rows, and the records that failed.
pub fn transform<F: Function>(batch: Batch, config: &F::Config) -> (Rows, Vec<(u32, Error)>) {
    let batch = Rc::new(batch);
    let mut rows = Rows::default();
    let mut failures = Vec::new();
    for index in 0..batch.len() {
        let record = Record::of(&batch, index);
        if !F::WANTS.tombstones && record.value().is_none() {
            rows.push(&batch, index, &record);
            continue;
        }
        let transformed = F::call(record, config).and_then(|transformed| {
            transformed.iter().try_for_each(|row| check(row, F::WANTS.keys, F::WANTS.headers))?;
            Ok(transformed)
        });
        match transformed {
            Ok(transformed) => transformed.iter().for_each(|row| rows.push(&batch, index, row)),
            Err(error) => failures.push((u32::try_from(index).unwrap_or(u32::MAX), error)),
        }
    }
    (rows, failures)
}

/// A place for the config of the one function of a component.
#[derive(Debug)]
pub struct Configured<T>(RefCell<Option<Rc<T>>>);

impl<T: Settings> Configured<T> {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    /// Reads the config.
    ///
    /// # Errors
    /// See [`Settings::read`].
    pub fn read(&self, json: &str) -> Result<(), String> {
        *self.0.borrow_mut() = Some(Rc::new(T::read(json)?));
        Ok(())
    }

    /// The config.
    ///
    /// # Errors
    /// It has not been read.
    pub fn get(&self) -> Result<Rc<T>, String> {
        self.0.borrow().clone().ok_or_else(|| "the transform was not given its config".to_owned())
    }
}

impl<T: Settings> Default for Configured<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Translates between the interface's types and ours; only there in a component.
#[cfg(target_arch = "wasm32")]
pub mod border {
    use super::bindings::exports::txconnect::transform::batches as wit;
    use super::bindings::txconnect::transform::description::{Description, Needs};
    use super::{Batch, Function, Settings, transform};
    use crate::columns::Column;

    fn into(column: wit::Column) -> Column {
        Column { data: column.data, ends: column.ends, nulls: column.nulls }
    }

    fn from(column: Column) -> wit::Column {
        wit::Column { data: column.data, ends: column.ends, nulls: column.nulls }
    }

    /// `describe`
    #[must_use]
    pub fn describe<F: Function>() -> Description {
        let wanted = |wanted: bool, part: Needs| if wanted { part } else { Needs::empty() };
        let needs = wanted(F::WANTS.keys, Needs::KEYS)
            | wanted(F::WANTS.headers, Needs::HEADERS)
            | wanted(F::WANTS.positions, Needs::POSITIONS);
        let (name, version) = (F::NAME.to_owned(), F::VERSION.to_owned());
        Description { name, version, needs, config_schema: F::Config::schema() }
    }

    /// `transform`
    pub fn run<F: Function>(batch: wit::Batch, config: &F::Config) -> wit::Output {
        let mut next = 0;
        let mut first_header = Vec::with_capacity(batch.headers.counts.len());
        for &count in &batch.headers.counts {
            first_header.push(next);
            next += count as usize;
        }
        let batch = Batch {
            topics: batch.topics,
            topic_of: batch.topic_of,
            partitions: batch.partitions,
            offsets: batch.offsets,
            timestamps: batch.timestamps,
            keys: into(batch.keys),
            values: into(batch.values),
            header_counts: batch.headers.counts,
            header_names: into(batch.headers.names),
            header_values: into(batch.headers.values),
            first_header,
        };
        let (rows, failures) = transform::<F>(batch, config);
        let topics = rows.topics;
        wit::Output {
            sources: rows.sources,
            keys: rows.keys.map(from),
            values: rows.values.map(from),
            routing: rows.topic_of.map(|topic_of| wit::Routing { topics, topic_of }),
            headers: rows.headers.map(|(counts, names, values)| wit::Headers {
                counts,
                names: from(names),
                values: from(values),
            }),
            failures: failures
                .into_iter()
                .map(|(record, error)| wit::Failure { record, code: error.code, message: error.message })
                .collect(),
        }
    }
}

/// Exports a [`Function`] as the component's transform. Elsewhere than in a component it does nothing.
#[doc(hidden)]
#[macro_export]
macro_rules! export_component {
    ($component:ident) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::component::bindings::exports::txconnect::transform::batches as wit;

            ::std::thread_local! {
                static CONFIG: $crate::component::Configured<<$component as $crate::Function>::Config> =
                    const { $crate::component::Configured::new() };
            }

            impl wit::Guest for $component {
                fn describe() -> wit::Description {
                    $crate::component::border::describe::<$component>()
                }

                fn init(config: String) -> Result<(), String> {
                    CONFIG.with(|place| place.read(&config))
                }

                fn transform(batch: wit::Batch) -> Result<wit::Output, String> {
                    let config = CONFIG.with(|place| place.get())?;
                    Ok($crate::component::border::run::<$component>(batch, &config))
                }
            }

            $crate::component::bindings::export!($component with_types_in $crate::component::bindings);
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            // Used by the component alone.
            let _ = <$component as $crate::Function>::call;
        };
    };
}
