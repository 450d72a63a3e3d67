//! Values whose shape is right → types.

use serde::de::DeserializeOwned;
use serde_path_to_error::{Deserializer, Segment, Track};
use serde_yaml::Value;
use serde_yaml::with::singleton_map_recursive;

use super::located::child;

/// Why a value is not of its type although its shape is right, for example a size beyond 64 bits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WrongValue {
    /// Where, as a JSON pointer.
    pub(super) pointer: String,
    /// What is wrong. May hold the value.
    pub(super) message: String,
}

/// Reads `value` as a `T`. Enum variants with content are mappings with one key, as in JSON.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, WrongValue> {
    let mut track = Track::new();
    singleton_map_recursive::deserialize(Deserializer::new(value, &mut track)).map_err(|error| {
        let mut pointer = String::new();
        for segment in &track.path() {
            match segment {
                Segment::Seq { index } => pointer = child(&pointer, &index.to_string()),
                Segment::Map { key } => pointer = child(&pointer, key),
                Segment::Enum { .. } | Segment::Unknown => {}
            }
        }
        WrongValue { pointer, message: error.to_string() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use txconnect_connector_api::ByteSize;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Credentials {
        None,
        ServiceAccountFile(String),
    }

    #[derive(Debug, Deserialize)]
    struct Block {
        sizes: Vec<ByteSize>,
        credentials: Credentials,
    }

    fn yaml(text: &str) -> Value {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn variants_are_words_or_mappings_with_one_key() {
        let block: Block = read(yaml("sizes: []\ncredentials: {service_account_file: a.json}")).unwrap();
        assert!(matches!(&block.credentials, Credentials::ServiceAccountFile(path) if path == "a.json"));
        let block: Block = read(yaml("sizes: [1B]\ncredentials: none")).unwrap();
        assert!(matches!(block.credentials, Credentials::None) && block.sizes == [ByteSize(1)]);
    }

    #[test]
    fn a_wrong_value_is_named_by_its_pointer() {
        let wrong = read::<Block>(yaml("sizes: [1B, 99999999999GiB]\ncredentials: none")).unwrap_err();
        assert_eq!(wrong.pointer, "/sizes/1");
        assert!(wrong.message.contains("is not a size"), "{}", wrong.message);
    }
}
