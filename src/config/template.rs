//! Text with the variable `{topic}`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

const VARIABLE: &str = "{topic}";

/// Text in which `{topic}` stands for the name of a record's topic. Other braces are mistakes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct TopicTemplate(String);

impl TopicTemplate {
    /// The text for `topic`.
    pub fn for_topic(&self, topic: &str) -> String {
        self.0.replace(VARIABLE, topic)
    }

    /// The text as it was written.
    pub fn as_written(&self) -> &str {
        &self.0
    }

    /// Whether the text is another one for another topic.
    pub fn depends_on_topic(&self) -> bool {
        self.0.contains(VARIABLE)
    }

    /// Whether `text` is what some topic makes of the template.
    pub fn may_make(&self, text: &str) -> bool {
        match self.0.split_once(VARIABLE) {
            None => self.0 == text,
            // Where the variable occurs twice, the first occurrence decides what the others are.
            Some((before, after)) if !after.contains(VARIABLE) => text
                .strip_prefix(before)
                .and_then(|rest| rest.strip_suffix(after))
                .is_some_and(|topic| !topic.is_empty()),
            Some((before, _)) => text.strip_prefix(before).is_some_and(|rest| {
                rest.char_indices().skip(1).map(|(end, _)| end).chain([rest.len()]).any(|end| {
                    rest.get(..end).is_some_and(|topic| !topic.is_empty() && self.for_topic(topic) == text)
                })
            }),
        }
    }
}

#[cfg(test)]
impl From<&str> for TopicTemplate {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl JsonSchema for TopicTemplate {
    fn schema_name() -> Cow<'static, str> {
        "TopicTemplate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Text in which `{topic}` is the only variable",
            "pattern": r"^([^{}]|\{topic\})+$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_variable_is_replaced_wherever_it_stands() {
        let template = TopicTemplate::from("a/{topic}/{topic}.json");
        assert_eq!(template.for_topic("t"), "a/t/t.json");
        assert!(template.may_make("a/t/t.json") && !template.may_make("a/t/u.json"));
        let fixed = TopicTemplate::from("dead");
        assert!(fixed.may_make("dead") && !fixed.may_make("x.dead") && !fixed.depends_on_topic());
    }

    proptest! {
        #[test]
        fn a_template_knows_what_it_makes(topic in "[a-z.]{1,6}", before in "[a-z.]{0,3}", after in "[a-z.]{0,3}") {
            for text in [format!("{before}{{topic}}{after}"), format!("{before}{{topic}}{after}{{topic}}")] {
                let template = TopicTemplate(text);
                prop_assert!(template.may_make(&template.for_topic(&topic)));
                prop_assert!(!template.may_make(""));
            }
        }
    }
}
