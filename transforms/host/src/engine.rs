//! Engines: one for each way to stop a guest, because the way is compiled into the code.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use wasmtime::{Cache, CacheConfig, Config, Engine};

use crate::config::Interrupt;

/// How often the clock that stops guests looks up.
const TICK: Duration = Duration::from_millis(5);
/// Instructions that count as a millisecond.
const FUEL_PER_MILLISECOND: u64 = 1_000_000;
/// The stack of guests. Threads of the runtime have 2 MiB.
const STACK: usize = 1 << 20;
/// How deep a backtrace goes.
const FRAMES: usize = 20;

/// The engines of one host, made when they are first needed.
pub(crate) struct Engines {
    cache: Option<Cache>,
    made: Mutex<Vec<(Interrupt, Engine)>>,
}

impl Engines {
    /// Engines that keep compiled code in a folder, where that can be.
    pub(crate) fn new(cache: Option<&Path>) -> Result<Self, String> {
        let cache = cache.and_then(|folder| {
            let opened = open_cache(folder);
            if let Err(why) = &opened {
                let folder = folder.display();
                tracing::warn!(%folder, %why, "compiled transforms are not kept: every start compiles them again");
            }
            opened.ok()
        });
        let engines = Self { cache, made: Mutex::new(Vec::new()) };
        engines.of(Interrupt::default())?;
        Ok(engines)
    }

    /// The engine whose guests are stopped in this way.
    pub(crate) fn of(&self, interrupt: Interrupt) -> Result<Engine, String> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, engine)) = made.iter().find(|(known, _)| *known == interrupt) {
            return Ok(engine.clone());
        }
        let engine = self.make(interrupt)?;
        made.push((interrupt, engine.clone()));
        Ok(engine)
    }

    fn make(&self, interrupt: Interrupt) -> Result<Engine, String> {
        let mut config = Config::new();
        // Guests answer at once, and a call costs half as much without what waiting would need.
        config.concurrency_support(false);
        config.max_wasm_stack(STACK);
        config.wasm_backtrace_max_frames(std::num::NonZeroUsize::new(FRAMES));
        config.epoch_interruption(interrupt == Interrupt::Epoch);
        config.consume_fuel(interrupt == Interrupt::Fuel);
        config.cache(self.cache.clone());
        let engine = Engine::new(&config).map_err(|error| format!("{error:#}"))?;
        if interrupt == Interrupt::Epoch {
            let ticking = engine.weak();
            std::thread::Builder::new()
                .name("transforms/clock".to_owned())
                .spawn(move || {
                    while let Some(engine) = ticking.upgrade() {
                        engine.increment_epoch();
                        drop(engine);
                        std::thread::sleep(TICK);
                    }
                })
                .map_err(|error| format!("the clock that stops transforms does not start: {error}"))?;
        }
        Ok(engine)
    }
}

fn open_cache(folder: &Path) -> Result<Cache, String> {
    let folder = std::path::absolute(folder).map_err(|error| error.to_string())?;
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|error| error.to_string())?;
    // What lies there is run as it is: nobody else may put something there.
    let found = folder.metadata().map_err(|error| error.to_string())?;
    if found.mode() & 0o022 != 0 {
        return Err("others can write into it (`chmod go-w` helps)".to_owned());
    }
    // On Linux the folder of the process belongs to the user it runs as.
    if Path::new("/proc/self").metadata().is_ok_and(|own| own.uid() != found.uid()) {
        return Err("it belongs to another user".to_owned());
    }
    let mut config = CacheConfig::new();
    config.with_directory(folder);
    Cache::new(config).map_err(|error| format!("{error:#}"))
}

/// How much time a guest gets, in the units of its engine.
pub(crate) fn ticks(time: Duration) -> u64 {
    let ticks = time.as_millis().div_ceil(TICK.as_millis());
    // The first tick may come at once.
    u64::try_from(ticks).unwrap_or(u64::MAX / 2).min(u64::MAX / 2) + 1
}

/// The same in instructions.
pub(crate) fn fuel(time: Duration) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    micros.saturating_mul(FUEL_PER_MILLISECOND / 1000)
}
