//! The statements that make a table. Names and texts of any content stay names and texts.

use std::fmt::Write as _;

use crate::plan::{TableName, TablePlan, quoted};

/// A text as it stands in a statement, whatever `standard_conforming_strings` says. NUL, which PostgreSQL has not, is
/// left out.
pub(crate) fn literal(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 3);
    quoted.push_str(if text.contains('\\') { "E'" } else { "'" });
    for character in text.chars() {
        match character {
            '\0' => {}
            '\'' | '\\' => {
                quoted.push(character);
                quoted.push(character);
            }
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

impl TableName {
    /// Makes the schema, if it is missing.
    pub fn create_schema(&self) -> String {
        format!("CREATE SCHEMA IF NOT EXISTS {};", quoted(&self.schema))
    }
}

impl TablePlan {
    /// Makes the table, if it is missing, with its primary key.
    pub fn create_table(&self) -> String {
        let mut lines: Vec<String> = self
            .columns
            .iter()
            .map(|column| {
                let null = if column.nullable { "" } else { " NOT NULL" };
                format!("  {} {}{null}", quoted(&column.name), column.column_type)
            })
            .collect();
        let key: Vec<String> =
            self.mode.key().iter().map(|&index| quoted(&self.columns[index].name)).collect();
        if !key.is_empty() {
            lines.push(format!("  PRIMARY KEY ({})", key.join(", ")));
        }
        format!("CREATE TABLE IF NOT EXISTS {} (\n{}\n);", self.table, lines.join(",\n"))
    }

    /// Puts the schema's descriptions on a table that was just made; empty where there are none.
    pub fn create_comments(&self) -> String {
        let mut statements = String::new();
        if let Some(description) = &self.description {
            let _ = writeln!(statements, "COMMENT ON TABLE {} IS {};", self.table, literal(description));
        }
        for column in &self.columns {
            if let Some(description) = &column.description {
                let name = quoted(&column.name);
                let _ = writeln!(
                    statements,
                    "COMMENT ON COLUMN {}.{name} IS {};",
                    self.table,
                    literal(description)
                );
            }
        }
        statements
    }

    /// All statements that make the table and the schema around it, for people.
    pub fn ddl(&self) -> String {
        let comments = self.create_comments();
        let statements = [self.table.create_schema(), self.create_table(), comments];
        statements.join("\n").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PostgresConfig;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use txconnect_connector_api::TableSchema;
    use txconnect_connector_api::schema::UnknownFields;

    fn plan(extra: &Value, schema: &Value) -> TablePlan {
        let mut all = json!({ "url": "postgresql://localhost/db" });
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let config: PostgresConfig = serde_json::from_value(all).unwrap();
        let schema = TableSchema::from_json_schema(schema, UnknownFields::DeadLetter).unwrap();
        TablePlan::new(&config, "orders", &schema).unwrap()
    }

    #[test]
    fn a_table_is_made_with_its_key_and_its_comments() {
        let schema = json!({
            "description": "What was ordered; it's all here",
            "required": ["id"],
            "properties": {
                "id": { "type": "string", "format": "uuid", "description": "The order" },
                "day": { "type": "string", "format": "date" },
                "amount": { "x-column": { "type": "numeric", "precision": 18, "scale": 2 } }
            }
        });
        let plan = plan(&json!({ "write": "upsert", "key": ["day", "id"], "schema": "Sales" }), &schema);
        assert_eq!(
            plan.ddl(),
            r#"CREATE SCHEMA IF NOT EXISTS "Sales";
CREATE TABLE IF NOT EXISTS "Sales"."orders" (
  "id" uuid NOT NULL,
  "day" date NOT NULL,
  "amount" numeric(18,2),
  PRIMARY KEY ("day", "id")
);
COMMENT ON TABLE "Sales"."orders" IS 'What was ordered; it''s all here';
COMMENT ON COLUMN "Sales"."orders"."id" IS 'The order';"#
        );
    }

    #[test]
    fn a_table_without_descriptions_has_no_comments() {
        let plan = plan(&json!({}), &json!({ "properties": { "id": { "type": "integer" } } }));
        assert_eq!(plan.create_comments(), "");
        assert!(plan.ddl().ends_with("(\n  \"id\" bigint\n);"));
    }

    /// Reads a statement as PostgreSQL's scanner does, with either setting of `standard_conforming_strings`, and answers
    /// what stands outside of quotes.
    fn outside_of_quotes(statement: &str, conforming: bool) -> String {
        let mut outside = String::new();
        let mut characters = statement.chars().peekable();
        let mut before = ' ';
        while let Some(character) = characters.next() {
            if !matches!(character, '"' | '\'') {
                outside.push(character);
                before = character;
                continue;
            }
            let escapes = character == '\'' && (before == 'E' || !conforming);
            loop {
                match characters.next().expect("quotes are closed") {
                    '\\' if escapes => {
                        characters.next();
                    }
                    // Two quotes stand for one.
                    inside if inside == character && characters.next_if_eq(&character).is_none() => break,
                    _ => {}
                }
            }
            before = character;
        }
        outside
    }

    proptest! {
        #[test]
        fn no_name_and_no_text_leaves_its_quotes(
            name in "[a-z'\";\\\\ \n-]{1,12}", text in "[a-z'\";\\\\\u{0} \n-]{0,24}", conforming in any::<bool>()
        ) {
            let schema = json!({ "description": text, "properties": { (name.as_str()): { "type": "integer", "description": text } } });
            let odd = plan(&json!({ "schema": name, "table": name }), &schema);
            let plain = plan(
                &json!({ "schema": "s", "table": "t" }),
                &json!({ "description": "d", "properties": { "c": { "type": "integer", "description": "d" } } }),
            );
            prop_assert_eq!(
                outside_of_quotes(&odd.ddl(), conforming).replace(" IS E;", " IS ;"),
                outside_of_quotes(&plain.ddl(), conforming)
            );
        }
    }
}
