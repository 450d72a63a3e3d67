//! Loading a guest: what it is, what it wants, what it says of itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use txconnect_connector_api::ConfigProblem;

use crate::batch::Needs;
use crate::config::{Grant, Limits};
use crate::transform::{InitError, Reports, Transform};

/// Everything that transforms of one process share: engines, compiled code on disk, a clock that stops guests.
pub struct Host {
    _private: (),
}

/// A guest, compiled and described.
pub struct Module {
    path: PathBuf,
    description: Description,
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

impl Host {
    /// A host that keeps compiled code in `cache`, a folder that is made; without one it compiles at every start.
    ///
    /// # Errors
    /// The machine or the folder does not allow it.
    pub fn new(cache: Option<&Path>) -> Result<Self, String> {
        let _ = cache;
        Ok(Self { _private: () })
    }

    /// Compiles a guest, or finds it compiled, looks at its interface and asks it to describe itself.
    ///
    /// # Errors
    /// It is not there, too large, no component, made for another version, wants what `allow` does not grant, or cannot
    /// describe itself within `limits`.
    pub fn load(&self, path: &Path, limits: Limits, allow: &[Grant]) -> Result<Arc<Module>, ModuleError> {
        let _ = (limits, allow);
        Err(ModuleError { path: path.to_owned(), why: "cannot be run yet".into(), help: None })
    }
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

    /// What its own schema finds wrong with a config. Paths are JSON pointers inside `config`.
    pub fn config_problems(&self, config: Option<&serde_json::Value>) -> Vec<ConfigProblem> {
        let _ = config;
        Vec::new()
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
        let _ = (config, reports);
        Err(InitError { name: self.description.name.clone(), why: "cannot be run yet".into() })
    }
}
