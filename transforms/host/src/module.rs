//! Loading a guest: what it is, what it wants, what it says of itself.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jsonschema::PatternOptions;
use txconnect_connector_api::ConfigProblem;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Engine, Store};

use crate::batch::Needs;
use crate::bindings::batches::{BatchTransform, BatchTransformPre, txconnect::transform::description};
use crate::bindings::records::RecordTransformPre;
use crate::config::{Grant, Interrupt, Limits};
use crate::engine::{Engines, fuel, ticks};
use crate::guest::State;
use crate::imports::{self, Import};
use crate::transform::{CallError, InitError, LogLevel, Reports, Running, Transform, what_happened};

/// The largest file.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// How long starting, describing itself and taking its config may take a guest.
pub(crate) const START_TIME: Duration = Duration::from_secs(10);
/// The longest name and version, in bytes.
const MAX_NAME: usize = 64;
/// The largest JSON Schema of a config, in bytes.
const MAX_SCHEMA: usize = 1 << 20;

/// The interfaces of which one is exported.
const BATCHES: &str = "txconnect:transform/batches";
const RECORDS: &str = "txconnect:transform/records";
/// The version of the interface that this host knows.
pub(crate) const VERSION: &str = "1.0.0";

/// Everything that transforms of one process share: engines, compiled code on disk, a clock that stops guests.
pub struct Host {
    engines: Engines,
}

/// A guest, compiled and described.
pub struct Module {
    path: PathBuf,
    size: u64,
    description: Description,
    schema: Option<jsonschema::Validator>,
    limits: Limits,
    guest: Guest,
}

/// What is needed to make instances.
pub(crate) struct Guest {
    engine: Engine,
    pub(crate) pre: Pre,
    imports: Vec<String>,
    exports: Vec<String>,
}

/// A guest whose imports are found.
pub(crate) enum Pre {
    Batches(BatchTransformPre<State>),
    Records(RecordTransformPre<State>),
}

/// What a guest says about itself.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// What it wants to see.
    pub needs: Needs,
    /// The JSON Schema of its config, where it takes one.
    pub config_schema: Option<serde_json::Value>,
    /// Which interface it exports.
    pub abi: Abi,
}

/// The interface that a guest exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// `txconnect:transform/batches@1.0.0`
    Batches1,
    /// `txconnect:transform/records@1.0.0`
    Records1,
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Abi::Batches1 => write!(f, "{BATCHES}@{VERSION}"),
            Abi::Records1 => write!(f, "{RECORDS}@{VERSION}"),
        }
    }
}

/// Why a file is no transform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transform `{}` {why}", path.display())]
pub struct ModuleError {
    /// The file.
    pub path: PathBuf,
    /// Why, to be read behind the file's name.
    pub why: String,
    /// How to mend it.
    pub help: Option<String>,
}

/// The same before the file's name is known.
pub(crate) struct Unfit {
    why: String,
    help: Option<String>,
}

impl Unfit {
    fn because(why: impl Into<String>) -> Self {
        Self { why: why.into(), help: None }
    }

    fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl Host {
    /// A host that keeps compiled code in `cache`, a folder that is made; without one, or where that cannot be written
    /// or others can write into it (which is said in the log), it compiles at every start.
    ///
    /// # Errors
    /// The machine cannot run WebAssembly.
    pub fn new(cache: Option<&Path>) -> Result<Self, String> {
        Ok(Self { engines: Engines::new(cache)? })
    }

    /// Compiles a guest, or finds it compiled, looks at its interface and asks it to describe itself.
    ///
    /// # Errors
    /// It is not there, too large, no component, made for another version, wants what `allow` does not grant, or cannot
    /// describe itself within `limits`.
    pub fn load(&self, path: &Path, limits: Limits, allow: &[Grant]) -> Result<Arc<Module>, ModuleError> {
        let failed = |Unfit { why, help }| ModuleError { path: path.to_owned(), why, help };
        let bytes = read(path).map_err(failed)?;
        let engine = self.engines.of(limits.interrupt).map_err(|why| {
            failed(Unfit::because(format!("cannot be run, WebAssembly does not start: {why}")))
        })?;
        let guest = Guest::compile(&engine, &bytes, allow).map_err(failed)?;
        let (description, schema) = describe(&guest, limits).map_err(failed)?;
        Ok(Arc::new(Module {
            path: path.to_owned(),
            size: bytes.len() as u64,
            description,
            schema,
            limits,
            guest,
        }))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Unfit> {
    let cannot = |error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Unfit::because("does not exist").help("build it: `txconnect transform build` in its folder")
        }
        kind => Unfit::because(format!("cannot be read: {kind}")),
    };
    // A pipe or a device could keep us waiting for ever.
    if !std::fs::metadata(path).map_err(|error| cannot(&error))?.is_file() {
        return Err(Unfit::because("is not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| cannot(&error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Unfit::because(format!("is larger than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    Ok(bytes)
}

/// What a file begins with: the same four bytes for all of WebAssembly, then a version and a layer.
fn look_at(bytes: &[u8]) -> Result<(), Unfit> {
    let help = "build it with `txconnect transform build`";
    match bytes {
        [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => Ok(()),
        [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            Err(Unfit::because("is a core WebAssembly module, not a component").help(help))
        }
        [b'\0', b'a', b's', b'm', ..] => {
            Err(Unfit::because("is WebAssembly of a version that is not known").help(help))
        }
        _ => Err(Unfit::because("is not WebAssembly").help(help)),
    }
}

impl Guest {
    fn compile(engine: &Engine, bytes: &[u8], allow: &[Grant]) -> Result<Self, Unfit> {
        look_at(bytes)?;
        let component = Component::from_binary(engine, bytes)
            .map_err(|error| Unfit::because(format!("cannot be compiled: {}", first_line(&error))))?;
        let kind = component.component_type();
        let imports: Vec<String> = kind.imports(engine).map(|(name, _)| name.to_owned()).collect();
        let exports: Vec<String> = kind.exports(engine).map(|(name, _)| name.to_owned()).collect();
        let abi = abi_of(&exports)?;
        check_imports(&imports, allow)?;
        let unfit = |error: wasmtime::Error| {
            Unfit::because(format!("does not fit the interface: {}", first_line(&error)))
                .help("build it again with the SDK of this txconnect")
        };
        let mut linker = Linker::<State>::new(engine);
        link(&mut linker).map_err(unfit)?;
        let pre = linker.instantiate_pre(&component).map_err(unfit)?;
        let pre = match abi {
            Abi::Batches1 => Pre::Batches(BatchTransformPre::new(pre).map_err(unfit)?),
            Abi::Records1 => Pre::Records(RecordTransformPre::new(pre).map_err(unfit)?),
        };
        Ok(Self { engine: engine.clone(), pre, imports, exports })
    }

    /// A new instance, with its first moments.
    pub(crate) fn start(&self, limits: Limits, reports: Arc<dyn Reports>) -> Result<Running, CallError> {
        let mut store = Store::new(&self.engine, State::new(limits.memory.as_usize(), reports));
        store.limiter(|state| &mut state.memory);
        store.call_hook(|store, hook| store.data().crosses(hook));
        // What a guest hands over in one call lies in its memory.
        store.set_hostcall_fuel(limits.memory.as_usize());
        let mut running = Running::new(store, limits.interrupt);
        running.instantiate(&self.pre, START_TIME)?;
        Ok(running)
    }
}

/// Everything that a guest can import at all; what it does import has been judged before.
fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;

    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    linker.allow_shadowing(false);
    BatchTransform::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

pub(crate) fn give_time(
    store: &mut Store<State>,
    interrupt: Interrupt,
    time: Duration,
) -> Result<(), CallError> {
    match interrupt {
        Interrupt::Epoch => store.set_epoch_deadline(ticks(time)),
        Interrupt::Fuel => {
            store.set_fuel(fuel(time)).map_err(|error| what_happened(&error, store.data(), time))?;
        }
        Interrupt::None => {}
    }
    Ok(())
}

fn abi_of(exports: &[String]) -> Result<Abi, Unfit> {
    let exported = |interface: &str| {
        exports.iter().find_map(|name| {
            name.strip_prefix(interface)
                .and_then(|rest| rest.strip_prefix('@').or(rest.is_empty().then_some("")))
        })
    };
    let (batches, records) = (exported(BATCHES), exported(RECORDS));
    match (batches, records) {
        (Some(VERSION), _) => Ok(Abi::Batches1),
        (None, Some(VERSION)) => Ok(Abi::Records1),
        (Some(version), _) | (None, Some(version)) => Err(Unfit::because(format!(
            "was built for version {} of the interface, and this txconnect knows {VERSION}",
            if version.is_empty() { "(none)" } else { version }
        ))
        .help("build it again with the SDK of this txconnect, or run a txconnect that knows its version")),
        (None, None) => Err(Unfit::because(format!(
            "is a component but no transform: it exports neither `{BATCHES}@{VERSION}` nor `{RECORDS}@{VERSION}`"
        ))
        .help("`txconnect new transform` writes one to begin with")),
    }
}

fn check_imports(names: &[String], allow: &[Grant]) -> Result<(), Unfit> {
    let mut never = Vec::new();
    let mut wanted: Vec<Grant> = Vec::new();
    let mut ungranted = Vec::new();
    for name in names {
        match imports::judge(name) {
            Import::Always => {}
            Import::With(grant) if allow.contains(&grant) => {}
            Import::With(grant) => {
                ungranted.push(name.as_str());
                if !wanted.contains(&grant) {
                    wanted.push(grant);
                }
            }
            Import::Never => never.push(name.as_str()),
        }
    }
    if !never.is_empty() {
        return Err(Unfit::because(format!("wants what no transform gets: {}", listed(&never)))
            .help("a transform sees its records and its config: take out what uses files, network or other components"));
    }
    if ungranted.is_empty() {
        return Ok(());
    }
    wanted.sort_unstable();
    let grants: Vec<&str> = wanted.iter().map(|grant| grant.name()).collect();
    Err(Unfit::because(format!("wants what it is not granted: {}", listed(&ungranted)))
        .help(format!("write `allow: [{}]` beside `wasm:`, or build it without", grants.join(", "))))
}

/// Some of the names, in backticks.
fn listed(names: &[&str]) -> String {
    const MOST: usize = 5;
    let mut shown: Vec<String> =
        names.iter().take(MOST).map(|name| format!("`{}`", crate::output::one_line(name))).collect();
    if names.len() > MOST {
        shown.push(format!("and {} more", names.len() - MOST));
    }
    shown.join(", ")
}

/// Guests at load tell nobody anything.
struct Deaf;

impl Reports for Deaf {
    fn log(&self, _: LogLevel, _: &str) {}
    fn count(&self, _: &str, _: u64) {}
}

fn describe(guest: &Guest, limits: Limits) -> Result<(Description, Option<jsonschema::Validator>), Unfit> {
    let wrong = |error: CallError| Unfit::because(format!("cannot describe itself: {error}"));
    let mut running = guest.start(limits, Arc::new(Deaf)).map_err(wrong)?;
    let said = running.describe(START_TIME).map_err(wrong)?;
    let description::Description { name, version, needs, config_schema } = said;
    for (what, text) in [("name", &name), ("version", &version)] {
        if text.is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control) {
            return Err(Unfit::because(format!(
                "describes itself with a {what} that is not 1 to {MAX_NAME} printable characters"
            )));
        }
    }
    if config_schema.len() > MAX_SCHEMA {
        return Err(Unfit::because(format!("has a config schema of more than {} MiB", MAX_SCHEMA >> 20)));
    }
    let (schema, validator) = if config_schema.trim().is_empty() {
        (None, None)
    } else {
        let schema: serde_json::Value = serde_json::from_str(&config_schema)
            .map_err(|error| Unfit::because(format!("has a config schema that is not JSON: {error}")))?;
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::regex())
            .offline()
            .build(&schema)
            .map_err(|error| {
                let message = crate::output::one_line(&error.to_string());
                Unfit::because(format!("has a config schema that is no JSON Schema: {message}"))
            })?;
        (Some(schema), Some(validator))
    };
    let needs = Needs {
        keys: needs.contains(description::Needs::KEYS),
        headers: needs.contains(description::Needs::HEADERS),
        positions: needs.contains(description::Needs::POSITIONS),
    };
    let abi = match guest.pre {
        Pre::Batches(_) => Abi::Batches1,
        Pre::Records(_) => Abi::Records1,
    };
    Ok((Description { name, version, needs, config_schema: schema, abi }, validator))
}

impl Module {
    /// What the guest says about itself.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size of its file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The interfaces that it imports, with their versions.
    pub fn imports(&self) -> &[String] {
        &self.guest.imports
    }

    /// The interfaces that it exports, with their versions.
    pub fn exports(&self) -> &[String] {
        &self.guest.exports
    }

    /// What it may use up.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What its own schema finds wrong with a config. Paths are JSON pointers inside `config`.
    pub fn config_problems(&self, config: Option<&serde_json::Value>) -> Vec<ConfigProblem> {
        let problem = |path: String, message: String| ConfigProblem { path, message, help: None };
        let name = &self.description.name;
        let Some(schema) = &self.schema else {
            return match config {
                None | Some(serde_json::Value::Null) => Vec::new(),
                Some(_) => vec![problem(String::new(), format!("the transform {name} takes no config"))],
            };
        };
        let config = config.unwrap_or(&serde_json::Value::Null);
        let shown = |error: jsonschema::ValidationError<'_>| {
            let path = error.instance_path().to_string();
            // A value may be a secret.
            let message = crate::output::one_line(&error.masked_with("this value").to_string());
            problem(path, format!("the transform {name} does not take it: {message}"))
        };
        schema.iter_errors(config).map(shown).collect()
    }

    /// A guest for one lane: an instance that was given its config.
    ///
    /// # Errors
    /// `init` has refused the config, or did not come to its end.
    pub fn start(
        self: &Arc<Self>,
        config: Option<&serde_json::Value>,
        reports: Arc<dyn Reports>,
    ) -> Result<Transform, InitError> {
        let config = config.map_or_else(|| "null".to_owned(), serde_json::Value::to_string);
        Transform::start(Arc::clone(self), config, reports)
    }

    pub(crate) fn instance(&self, config: &str, reports: Arc<dyn Reports>) -> Result<Running, InitError> {
        let failed = |why: String| InitError { name: self.description.name.clone(), why };
        let mut running =
            self.guest.start(self.limits, reports).map_err(|error| failed(error.to_string()))?;
        match running.init(config, START_TIME) {
            Ok(Ok(())) => Ok(running),
            Ok(Err(refused)) => {
                Err(failed(format!("it refuses its config: {}", crate::output::one_line(&refused))))
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// The first line of an error; those of compilers show the bytes around.
fn first_line(error: &wasmtime::Error) -> String {
    let whole = format!("{error:#}");
    crate::output::one_line(whole.lines().next().unwrap_or_default())
}
