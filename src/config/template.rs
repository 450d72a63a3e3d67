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

    /// Whether `text` is what a topic that `is_topic` accepts makes of the template.
    pub fn is_made_of(&self, text: &str, is_topic: impl Fn(&str) -> bool) -> bool {
        let Some((before, after)) = self.0.split_once(VARIABLE) else { return self.0 == text };
        let Some(rest) = text.strip_prefix(before) else { return false };
        // Where the variable occurs once, what follows it decides how long the topic is.
        let may_end = |end: &usize| after.contains(VARIABLE) || rest.len() - end == after.len();
        let ends = rest.char_indices().map(|(end, _)| end).skip(1).chain([rest.len()]).filter(may_end);
        ends.map(|end| &rest[..end])
            .any(|topic| !topic.is_empty() && self.for_topic(topic) == text && is_topic(topic))
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
        assert!(template.is_made_of("a/t/t.json", |topic| topic == "t"));
        assert!(
            !template.is_made_of("a/t/u.json", |_| true) && !template.is_made_of("a/t/t.json", |_| false)
        );
        let fixed = TopicTemplate::from("dead");
        assert!(fixed.is_made_of("dead", |_| false) && !fixed.is_made_of("x.dead", |_| true));
        assert!(!fixed.depends_on_topic());
    }

    proptest! {
        #[test]
        fn a_template_knows_what_it_makes(topic in "[a-z.]{1,6}", before in "[a-z.]{0,3}", after in "[a-z.]{0,3}") {
            for text in [format!("{before}{{topic}}{after}"), format!("{before}{{topic}}{after}{{topic}}")] {
                let template = TopicTemplate(text);
                prop_assert!(template.is_made_of(&template.for_topic(&topic), |made| made == topic));
                prop_assert!(!template.is_made_of("", |_| true));
            }
        }
    }
}
