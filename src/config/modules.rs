//! The modules of transforms: one host for the process, and one load of each module for all pipelines.

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use txconnect_transform_host::{Grant, Host, Limits, Module, ModuleError};

/// The host of this process, made when the first transform is loaded. It keeps compiled modules in the folder that
/// `TXCONNECT_CACHE_DIR` names, else in `txconnect` below `XDG_CACHE_HOME` or below `.cache` in `HOME`.
///
/// # Errors
/// This machine cannot run WebAssembly.
pub fn transform_host() -> Result<&'static Host, &'static str> {
    static HOST: OnceLock<Result<Host, String>> = OnceLock::new();
    HOST.get_or_init(|| Host::new(cache_folder(&|name| std::env::var_os(name)).as_deref()))
        .as_ref()
        .map_err(String::as_str)
}

/// Where compiled modules are kept, if anywhere. A variable that is empty counts as not set.
fn cache_folder(environment: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(chosen) = folder("TXCONNECT_CACHE_DIR") {
        return Some(chosen);
    }
    // A relative path is to be ignored: https://specifications.freedesktop.org/basedir-spec/latest/
    let caches = folder("XDG_CACHE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| folder("HOME").map(|home| home.join(".cache")))?;
    Some(caches.join("txconnect"))
}

/// What loading a module depends on.
#[derive(PartialEq)]
struct Wanted {
    path: PathBuf,
    limits: Limits,
    allow: Vec<Grant>,
}

/// A module, or why it is none.
type Loaded = Result<Arc<Module>, ModuleError>;

/// The modules of the files that are loaded together, each loaded once.
#[derive(Default)]
pub(super) struct Modules {
    loaded: RefCell<Vec<(Wanted, Loaded)>>,
}

impl Modules {
    /// The module at `path`, compiled and described.
    pub(super) fn load(&self, path: &Path, limits: Limits, allow: &[Grant]) -> Loaded {
        let mut allow = allow.to_vec();
        allow.sort_unstable();
        allow.dedup();
        let wanted = Wanted { path: path.to_owned(), limits, allow };
        if let Some((_, result)) = self.loaded.borrow().iter().find(|(known, _)| *known == wanted) {
            return result.clone();
        }
        let result = match transform_host() {
            Ok(host) => host.load(path, limits, &wanted.allow),
            Err(why) => Err(ModuleError {
                path: path.to_owned(),
                why: format!("cannot be run on this machine: {why}"),
                help: None,
            }),
        };
        self.loaded.borrow_mut().push((wanted, result.clone()));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_modules_are_kept_where_the_user_says_else_where_caches_are() {
        let folder = |variables: &[(&str, &str)]| {
            cache_folder(&|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
            })
        };
        let all = [("TXCONNECT_CACHE_DIR", "own"), ("XDG_CACHE_HOME", "/xdg"), ("HOME", "/home/a")];
        assert_eq!(folder(&all), Some("own".into()));
        assert_eq!(folder(&all[1..]), Some("/xdg/txconnect".into()));
        assert_eq!(folder(&all[2..]), Some("/home/a/.cache/txconnect".into()));
        assert_eq!(folder(&[]), None);
        let odd = [("TXCONNECT_CACHE_DIR", ""), ("XDG_CACHE_HOME", "relative"), ("HOME", "/home/a")];
        assert_eq!(folder(&odd), Some("/home/a/.cache/txconnect".into()));
    }
}
