//! Which librdkafka this program runs with.

#![forbid(unsafe_code)]

use rdkafka::ClientConfig;
use rdkafka::util::get_rdkafka_version;

/// librdkafka's version, for example `2.12.1`.
pub fn version() -> String {
    get_rdkafka_version().1
}

/// What librdkafka was built with, for example `gzip,snappy,ssl`, where it tells.
pub fn features() -> Option<String> {
    ClientConfig::new().create_native_config().ok()?.get("builtin.features").ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_library_says_what_it_is() {
        assert!(super::version().starts_with("2."), "{}", super::version());
        let features = super::features().unwrap();
        assert!(features.split(',').any(|feature| feature == "ssl"), "{features}");
    }
}
