//! Writes the sample data: `cargo run --release --example generate_data -- data`.
//!
//! The data is in the repository; this is for changing it. See [`sample`] for what it holds.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;

mod sample;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        return Err("give one argument: the folder to write into".into());
    };
    std::fs::create_dir_all(&folder)
        .map_err(|error| format!("the folder {} cannot be made: {error}", folder.display()))?;
    for file in sample::files() {
        let path = folder.join(format!("{}.json", file.topic));
        std::fs::write(&path, file.text)
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        writeln!(std::io::stderr(), "{}: {} records", path.display(), file.records)?;
    }
    Ok(())
}
