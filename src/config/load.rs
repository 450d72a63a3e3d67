//! Files and folders → pipelines, or every mistake in them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checks::{CheckedOutput, Checks, SchemaUse, Schemas};
use super::diagnose::{Mistake, Mistakes, Place, Severity};
use super::draft::{Block, Draft, block_of};
use super::interpolate::{Outside, Unresolved, interpolate};
use super::locate::{MAX_BYTES, Mark, TextMistake, locate};
use super::located::{Located, line_and_column};
use super::model::{
    BatchLimits, DeadLetters, Decode, OnErrorSetting, Pipeline, PipelineFile, ValidateSettings,
};
use super::modules::Modules;
use super::neighbours::{Neighbour, compare};
use super::overrides::{self, Override};
use super::shape;

/// Reads pipeline files and checks them, without connecting to anything.
///
/// A folder stands for its `*.yaml` and `*.yml` files, sorted by name. `overrides` are `key.path=value`, applied
/// to every file. `environment` looks up a variable for `${…}`.
///
/// # Errors
/// Every mistake in every file, sorted by place. Warnings alone are no error: they are in
/// [`Pipeline::warnings`].
pub fn load(
    paths: &[PathBuf],
    overrides: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Pipeline>, Mistakes> {
    let mut found = Vec::new();
    let files = expand(paths, &mut found);
    let overrides = overrides::parse(overrides, &mut found);
    let context = Context { overrides: &overrides, environment, modules: &Modules::default() };
    let mut readings: Vec<Reading> =
        files.iter().filter_map(|file| read(file, &context, &mut found)).collect();
    let neighbours: Vec<Neighbour<'_>> = readings.iter().map(Reading::as_neighbour).collect();
    let between = compare(&neighbours);
    drop(neighbours);
    for (index, mistake) in between {
        readings[index].found.push(mistake);
    }
    let mut pipelines = Vec::new();
    for mut reading in readings {
        if let Some(mut pipeline) = reading.pipeline.take() {
            pipeline.warnings =
                reading.found.iter().filter(|one| one.severity == Severity::Warning).cloned().collect();
            pipelines.push(pipeline);
        }
        found.append(&mut reading.found);
    }
    Mistakes::from_findings(found).map(|_| pipelines)
}

/// The files that `paths` mean, each once.
fn expand(paths: &[PathBuf], found: &mut Vec<Mistake>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    if paths.is_empty() {
        found.push(Mistake::whole_file("", "no pipeline file is named").with_help("name a file or a folder"));
    }
    for path in paths {
        let listed = if path.is_dir() { list(path) } else { Ok(vec![path.clone()]) };
        match listed {
            Ok(listed) => {
                // One file under two names is still one pipeline.
                let new = |file: &PathBuf| {
                    seen.insert(std::fs::canonicalize(file).unwrap_or_else(|_| file.clone()))
                };
                files.extend(listed.into_iter().filter(new));
            }
            Err(mistake) => found.push(mistake),
        }
    }
    files
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, Mistake> {
    let cannot = |error: &std::io::Error| {
        Mistake::whole_file(folder, format!("this folder cannot be read: {}", error.kind()))
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| cannot(&error))? {
        let path = entry.map_err(|error| cannot(&error))?.path();
        let is_yaml = matches!(path.extension().and_then(OsStr::to_str), Some("yaml" | "yml"));
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_yaml && !is_hidden && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Mistake::whole_file(folder, "this folder holds no pipeline file")
            .with_help("a pipeline file ends in .yaml or .yml"));
    }
    Ok(files)
}

/// What relative paths in `file` start from.
fn base_dir(file: &Path) -> PathBuf {
    let folder = file.parent().unwrap_or(Path::new(""));
    let name = match folder.file_name() {
        Some(name) => Some(name.to_owned()),
        None => std::path::absolute(file)
            .ok()
            .and_then(|file| file.parent().and_then(Path::file_name).map(OsStr::to_owned)),
    };
    if name.as_deref() != Some(OsStr::new("pipelines")) {
        return folder.to_owned();
    }
    match folder.parent() {
        Some(parent) if folder.file_name().is_some() => parent.to_owned(),
        _ => folder.join(".."),
    }
}

fn read_text(file: &Path) -> Result<String, Mistake> {
    let cannot = |error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Mistake::whole_file(file, "this file does not exist"),
        kind => Mistake::whole_file(file, format!("this file cannot be read: {kind}")),
    };
    // A pipe or a device could keep us waiting for ever.
    if !std::fs::metadata(file).map_err(|error| cannot(&error))?.is_file() {
        return Err(Mistake::whole_file(file, "this is not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| cannot(&error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Mistake::whole_file(file, "this file is larger than 1MiB")
            .with_help("one file holds one pipeline, not its data"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let start = String::from_utf8_lossy(&error.as_bytes()[..good]);
        let (line, column) = line_and_column(&start, start.len());
        let place = Place::Position { file: file.into(), line, column };
        Mistake::error(place, "", "this is not UTF-8 text").with_help("save the file as UTF-8")
    })
}

/// A file that could be read as a tree.
struct Reading {
    located: Located,
    name: Option<String>,
    source: Option<(txconnect_kafka::KafkaSourceConfig, String)>,
    dead_letters: Option<DeadLetters>,
    /// Complete where nothing that was found is an error.
    pipeline: Option<Pipeline>,
    found: Vec<Mistake>,
}

impl Reading {
    fn as_neighbour(&self) -> Neighbour<'_> {
        Neighbour {
            located: &self.located,
            name: self.name.as_deref(),
            source: self.source.as_ref().map(|(source, group)| (source, group.as_str())),
            dead_letters: self.dead_letters.as_ref(),
        }
    }
}

/// What all files that are loaded together share.
struct Context<'c> {
    overrides: &'c [Override],
    environment: &'c dyn Fn(&str) -> Option<String>,
    modules: &'c Modules,
}

fn read(file: &Path, context: &Context<'_>, found: &mut Vec<Mistake>) -> Option<Reading> {
    let text = match read_text(file) {
        Ok(text) => text,
        Err(mistake) => {
            found.push(mistake);
            return None;
        }
    };
    read_pipeline(file, &text, context, found)
}

/// The same for a text that has been read.
fn read_pipeline(
    file: &Path,
    text: &str,
    context: &Context<'_>,
    found: &mut Vec<Mistake>,
) -> Option<Reading> {
    let Context { overrides, environment, .. } = *context;
    let file: Arc<Path> = file.into();
    let located = locate(text);
    let mut mistakes: Vec<Mistake> =
        located.mistakes.into_iter().map(|mistake| text_mistake(mistake, &file)).collect();
    let Some(mut root) = located.root else {
        found.append(&mut mistakes);
        return None;
    };
    let base_dir = base_dir(&file);
    for one in overrides {
        mistakes.extend(overrides::apply(one, &mut root, &file).err());
    }
    let replaced = interpolate(&mut root, text, &Outside { environment, base_dir: &base_dir });
    let override_keys = overrides.iter().map(|one| one.key.clone()).collect();
    let mut located = Located { file, root, hidden: replaced.hidden, override_keys };
    let mut flawed = BTreeSet::new();
    for unresolved in replaced.unresolved {
        flawed.insert(block_of(&unresolved.path));
        mistakes.push(unresolved_mistake(unresolved, text, &located));
    }
    let mut shape = shape::check(&mut located);
    mistakes.append(&mut shape.mistakes);
    flawed.append(&mut shape.flawed);
    Some(assemble(located, base_dir, &flawed, mistakes, context))
}

fn text_mistake(mistake: TextMistake, file: &Arc<Path>) -> Mistake {
    let place = Place::Position { file: Arc::clone(file), line: mistake.line, column: mistake.column };
    let error = Mistake::error(place, "", mistake.message);
    match mistake.help {
        Some(help) => error.with_help(help),
        None => error,
    }
}

fn unresolved_mistake(unresolved: Unresolved, text: &str, located: &Located) -> Mistake {
    let Unresolved { scalar, source_byte, path, message, help } = unresolved;
    let mark = match source_byte {
        Some(byte) => {
            let (line, column) = line_and_column(text, byte);
            Mark::At { line, column }
        }
        None => scalar,
    };
    Mistake::error(located.place(mark), path, message).with_help(help)
}

fn assemble(
    located: Located,
    base_dir: PathBuf,
    flawed: &BTreeSet<String>,
    mut mistakes: Vec<Mistake>,
    context: &Context<'_>,
) -> Reading {
    let draft = Draft::read(&located, flawed, &mut mistakes);
    let mut checks = Checks { located: &located, base_dir: &base_dir, found: mistakes };

    let name = match draft.name.map(Some).or(None) {
        Some(Some(name)) => Some(name.0),
        Some(None) => checks.default_name(),
        None => None,
    };
    let source = draft.source.given().map(|source| {
        let mut kafka = source.kafka;
        kafka.resolve_paths(&base_dir);
        checks.source(&kafka);
        kafka
    });
    let group = source.as_ref().and_then(|source| match &source.group {
        Some(group) => Some(group.clone()),
        None => name.as_ref().map(|name| format!("connect-{name}")),
    });
    let decode = draft.decode.or(Decode::default());
    let validate = draft.validate.map(Some).or(None).map(|block| {
        block.map(|block| ValidateSettings {
            schema: block.schema,
            unknown_fields: block.unknown_fields.into(),
        })
    });
    let transformed = match &draft.transform {
        Block::Given(blocks) => Some(!blocks.is_empty()),
        Block::Absent => Some(false),
        Block::Flawed => None,
    };
    let drain = source.as_ref().map(|source| source.rebalance.drain_timeout);
    let transforms = match draft.transform {
        Block::Given(blocks) => checks.transforms(blocks, context.modules, drain),
        Block::Absent => Some(Vec::new()),
        Block::Flawed => None,
    };
    let output = draft.output.map(Some).or(None).map(|output| checks.output(output, transformed));
    if let (Some(decode), Some(validate), Some(output)) = (decode, &validate, &output) {
        checks.decode(decode, validate.is_some(), output.schema.is_some());
    }
    let sink = draft.sink.given().and_then(|sink| checks.sink(sink, context.environment));
    let (schemas, output_schemas) = match (&validate, &output) {
        (Some(validate), Some(CheckedOutput { schema, routes })) => {
            let source = source.as_ref();
            let schemas = SchemaUse { input: validate.as_ref(), output: schema.as_ref(), routes, source };
            checks.schemas(&schemas, sink.as_ref())
        }
        _ => <(Schemas, Schemas)>::default(),
    };
    let dead_letters = draft.dead_letters.map(Some).or(None);
    let on_error = draft
        .on_error
        .or(OnErrorSetting::default())
        .map(|setting| checks.on_error(setting, dead_letters.as_ref().map(Option::is_some)));
    if let Some(Some(dead_letters)) = &dead_letters {
        checks.dead_letters(dead_letters, source.as_ref());
    }
    let memory = draft.memory.or(PipelineFile::DEFAULT_MEMORY);
    let limits = sink.as_ref().map(|sink| sink.sink.limits());
    let batch = draft.batch.or(BatchLimits::default()).map(|batch| checks.batch(batch, memory, limits));
    let lanes = draft.lanes.map(Some).or(None);
    let stalled_after = draft.stalled_after.or(PipelineFile::DEFAULT_STALLED_AFTER);

    let found = checks.found;
    let source = source.zip(group);
    let is_right = found.iter().all(|mistake| mistake.severity == Severity::Warning);
    let complete = || {
        let (source, group) = source.clone()?;
        let sink = sink?;
        let CheckedOutput { schema: output, routes } = output?;
        Some(Pipeline {
            name: name.clone()?,
            file: located.file.to_path_buf(),
            base_dir,
            source,
            group,
            decode: decode?,
            validate: validate?,
            transforms: transforms?,
            output,
            routes,
            on_error: on_error?,
            batch: batch?,
            dead_letters: dead_letters.clone()?,
            memory: memory?,
            lanes: lanes?,
            stalled_after: stalled_after?,
            sink: sink.sink,
            warnings: Vec::new(),
            schemas,
            output_schemas,
            demands: sink.demands,
        })
    };
    let pipeline = if is_right { complete() } else { None };
    Reading { name, source, dead_letters: dead_letters.flatten(), pipeline, found, located }
}
