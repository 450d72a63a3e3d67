//! `txconnect transform inspect`: what a component says about itself.

use std::fmt::Write as _;

use serde_json::{Value, json};
use txconnect_transform_host::{Abi, Grant, Limits, Module, Needs};

use super::super::{CommandError, print_result};
use super::{Format, InspectArguments, as_written, load_with_what_it_wants};
use crate::terminal::numbers::counted;

/// Shows what the arguments name.
pub(super) fn inspect(arguments: &InspectArguments) -> Result<(), CommandError> {
    let (module, wanted) = load_with_what_it_wants(&arguments.module, Limits::default())?;
    print_result(&match arguments.format {
        Format::Text => for_people(&module, &wanted),
        Format::Json => format!("{}\n", for_programs(&module, &wanted)),
    })
}

/// The interface it exports.
fn interface(abi: Abi) -> &'static str {
    match abi {
        Abi::Batches1 => "txconnect:transform/batches@1.0.0",
        Abi::Records1 => "txconnect:transform/records@1.0.0",
    }
}

/// What it wants to see beside topic and value.
fn parts(needs: Needs) -> Vec<&'static str> {
    let all = [("keys", needs.keys), ("headers", needs.headers), ("positions", needs.positions)];
    all.into_iter().filter(|(_, needed)| *needed).map(|(name, _)| name).collect()
}

fn for_people(module: &Module, wanted: &[Grant]) -> String {
    let description = module.description();
    let needs = parts(description.needs);
    let needs = if needs.is_empty() { "nothing more".to_owned() } else { needs.join(", ") };
    let how = match description.abi {
        Abi::Batches1 => "whole batches",
        Abi::Records1 => "one record at a time",
    };
    let mut text = format!(
        "{} {}\nfile       {} ({})\ninterface  {} ({how})\nsees       topics, values; {needs}\n",
        description.name,
        description.version,
        module.path().display(),
        counted(module.size(), "byte", "bytes"),
        interface(description.abi),
    );
    let grants = if wanted.is_empty() { "nothing of the machine".to_owned() } else { as_written(wanted) };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "wants      {grants}");
    let imports = module.imports();
    text.push_str(if imports.is_empty() { "imports    none\n" } else { "imports\n" });
    for import in imports {
        let _ = writeln!(text, "  {import}");
    }
    match &description.config_schema {
        None => text.push_str("config     none\n"),
        Some(schema) => {
            let _ = writeln!(text, "config     what follows this JSON Schema");
            for line in format!("{schema:#}").lines() {
                let _ = writeln!(text, "  {line}");
            }
        }
    }
    text
}

fn for_programs(module: &Module, wanted: &[Grant]) -> Value {
    let description = module.description();
    json!({
        "name": description.name,
        "version": description.version,
        "file": module.path().display().to_string(),
        "bytes": module.size(),
        "interface": interface(description.abi),
        "needs": parts(description.needs),
        "allow": wanted.iter().map(|grant| grant.name()).collect::<Vec<_>>(),
        "imports": module.imports(),
        "exports": module.exports(),
        "config_schema": description.config_schema,
    })
}
