//! Guests written by hand in WebAssembly's text format: they can be as hostile as they like, and need no compiler.

use std::path::{Path, PathBuf};

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const WIT: &str = include_str!("../../../wit/1.0.0/transform.wit");

/// A guest; what is not said otherwise is friendly and keeps every record as it is.
pub(crate) struct WatGuest {
    wit: String,
    world: String,
    interface: String,
    describe: String,
    init: String,
    transform: String,
    more: String,
    imports: String,
}

impl Default for WatGuest {
    fn default() -> Self {
        Self {
            wit: WIT.to_owned(),
            world: "batch-transform".to_owned(),
            interface: "txconnect:transform/batches@1.0.0".to_owned(),
            describe: "(i32.const 1024)".to_owned(),
            init: "(i32.const 1100)".to_owned(),
            transform: "(call $keep_all (local.get $batch))".to_owned(),
            more: String::new(),
            imports: String::new(),
        }
    }
}

impl WatGuest {
    /// What `transform` does. `$batch` points at the batch, what is left must point at the result; `(call $keep_all
    /// (local.get $batch))` answers that all is as it was, `$answer` is the place of an answer without rows.
    pub(crate) fn transform(body: &str) -> Self {
        Self { transform: body.to_owned(), ..Self::default() }
    }

    /// What `transform` does, to be put into another.
    pub(crate) fn body(&self) -> &str {
        &self.transform
    }

    /// What `describe` does.
    pub(crate) fn describe(self, body: &str) -> Self {
        Self { describe: body.to_owned(), ..self }
    }

    /// What `init` does.
    pub(crate) fn init(self, body: &str) -> Self {
        Self { init: body.to_owned(), ..self }
    }

    /// Functions, globals and data beside.
    pub(crate) fn with(self, more: &str) -> Self {
        Self { more: more.to_owned(), ..self }
    }

    /// A world that imports more, and the import in the core module. `more` is WIT that stands behind ours.
    pub(crate) fn importing(self, import: &str, more: &str, core: &str) -> Self {
        let wit = format!("{WIT}\nworld foreign {{ import host; {import}; export batches; }}\n{more}");
        Self { wit, world: "foreign".to_owned(), imports: core.to_owned(), ..self }
    }

    /// The same for another version of the interface.
    pub(crate) fn version(self, version: &str) -> Self {
        Self {
            wit: self.wit.replace("@1.0.0", &format!("@{version}")),
            interface: self.interface.replace("1.0.0", version),
            ..self
        }
    }

    /// Its file, in a folder.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("guest.wasm");
        std::fs::write(&path, self.component()).unwrap();
        path
    }

    fn component(&self) -> Vec<u8> {
        let mut module = wat::parse_str(self.text()).unwrap();
        let mut resolve = Resolve::default();
        let package = resolve.push_str("transform.wit", &self.wit).unwrap();
        let world = resolve.select_world(&[package], Some(&self.world)).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
        ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
    }

    fn text(&self) -> String {
        let Self { interface, describe, init, transform, more, imports, .. } = self;
        let version = interface.split_once('@').map_or("1.0.0", |(_, version)| version);
        format!(
            r#"(module
  (import "txconnect:transform/host@{version}" "log" (func $log (param i32 i32 i32)))
  (import "txconnect:transform/host@{version}" "counter" (func $counter (param i32 i32 i64)))
  {imports}
  (memory (export "memory") 2)
  (global $next (mut i32) (i32.const 65536))
  (global $answer i32 (i32.const 2048))
  ;; The description: name, version, no needs, no config.
  (data (i32.const 1024) "\00\02\00\00\04\00\00\00" "\10\02\00\00\05\00\00\00" "\00\00\00\00" "\00\00\00\00\00\00\00\00")
  (data (i32.const 512) "by-w" "at  " "        " "1.2.3")
  (func $alloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $start i32)
    (local.set $start
      (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
    (global.set $next (i32.add (local.get $start) (local.get 3)))
    (loop $grow
      (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
        (then
          (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then (unreachable)))
          (br $grow))))
    (local.get $start))
  ;; Every record keeps what it has: 0, 1, 2 … are the sources.
  (func $keep_all (param $batch i32) (result i32)
    (local $count i32) (local $sources i32) (local $index i32)
    (local.set $count (i32.load offset=76 (local.get $batch)))
    (local.set $sources
      (call $alloc (i32.const 0) (i32.const 0) (i32.const 4) (i32.mul (local.get $count) (i32.const 4))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $index) (local.get $count)))
      (i32.store
        (i32.add (local.get $sources) (i32.mul (local.get $index) (i32.const 4)))
        (local.get $index))
      (local.set $index (i32.add (local.get $index) (i32.const 1)))
      (br $next)))
    (i32.store offset=4 (global.get $answer) (local.get $sources))
    (i32.store offset=8 (global.get $answer) (local.get $count))
    (global.get $answer))
  {more}
  (func $describe (export "{interface}#describe") (result i32) {describe})
  (func $init (export "{interface}#init") (param $config i32) (param $length i32) (result i32) {init})
  (func $transform (export "{interface}#transform") (param $batch i32) (result i32) {transform})
  (func (export "cabi_post_{interface}#transform") (param i32)
    (global.set $next (i32.const 65536))
    (memory.fill (global.get $answer) (i32.const 0) (i32.const 256)))
)"#
        )
    }
}
