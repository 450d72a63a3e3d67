//! The statements that write rows of one table.

use std::fmt::Write as _;

use tokio_postgres::types::Type;

use crate::plan::{ColumnType, PlannedWrite, TablePlan, quoted};

/// A table that rows are written to.
///
/// Rows with a key travel as one array per column, which `unnest` in the select list turns into rows again. Measured
/// (docs/postgres.md) it needs less of the server than `unnest` behind FROM, which keeps all rows a second time, and
/// no more than COPY into a temporary table and a merge, for 100 to 50,000 rows; so there is no second way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// What the rows become.
    pub(crate) plan: TablePlan,
    /// A condition that holds as long as the columns are what they were when somebody looked; `None` before that.
    pub(crate) unchanged: Option<String>,
    /// `COPY … FROM STDIN` of all columns, where every row is a new one.
    pub(crate) copy: String,
    /// `INSERT … ON CONFLICT` with one array per column; empty for [`PlannedWrite::Append`].
    pub(crate) put: String,
    /// `DELETE` with one array per column of `delete_columns`; empty where no row is deleted.
    pub(crate) delete: String,
    /// The key, and behind it the column that says how old a deletion is, where there is one.
    pub(crate) delete_columns: Vec<usize>,
}

impl Table {
    pub(crate) fn new(plan: TablePlan, unchanged: Option<String>) -> Self {
        let (put, delete) = match &plan.mode {
            PlannedWrite::Append => (String::new(), String::new()),
            PlannedWrite::InsertIgnore { .. } => (put(&plan), String::new()),
            PlannedWrite::Upsert { .. } => (put(&plan), delete(&plan)),
        };
        let delete_columns = plan.mode.key().iter().copied().chain(plan.age_of_deletes()).collect();
        let copy = format!(
            "COPY {} ({}) FROM STDIN WITH (FORMAT binary)",
            plan.table,
            names(plan.columns.iter().map(|column| &column.name))
        );
        Self { plan, unchanged, copy, put, delete, delete_columns }
    }

    /// The table as messages name it.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.plan.table.schema, self.plan.table.table)
    }
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

fn put(plan: &TablePlan) -> String {
    let mut statement = format!(
        "INSERT INTO {} AS target ({}) SELECT ",
        plan.table,
        names(plan.columns.iter().map(|column| &column.name))
    );
    for (index, column) in plan.columns.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let _ = write!(statement, "{comma}{}", unnested(index, &column.column_type));
    }
    let key = plan.mode.key();
    let _ =
        write!(statement, " ON CONFLICT ({}) ", names(key.iter().map(|&index| &plan.columns[index].name)));
    let changed: Vec<String> = plan
        .columns
        .iter()
        .enumerate()
        .filter(|(index, _)| !key.contains(index))
        .map(|(_, column)| format!("{0} = EXCLUDED.{0}", quoted(&column.name)))
        .collect();
    match &plan.mode {
        PlannedWrite::Upsert { newest_by, .. } if !changed.is_empty() => {
            let _ = write!(statement, "DO UPDATE SET {}", changed.join(", "));
            if let Some(newest_by) = newest_by {
                let name = quoted(&plan.columns[*newest_by].name);
                let _ = write!(statement, " WHERE target.{name} IS NULL OR target.{name} <= EXCLUDED.{name}");
            }
        }
        _ => statement.push_str("DO NOTHING"),
    }
    statement
}

fn delete(plan: &TablePlan) -> String {
    let key = plan.mode.key();
    let mut columns: Vec<String> = key
        .iter()
        .enumerate()
        .map(|(place, &index)| format!("{} AS key{place}", unnested(place, &plan.columns[index].column_type)))
        .collect();
    let mut matches: Vec<String> = key
        .iter()
        .enumerate()
        .map(|(place, &index)| format!("target.{} = gone.key{place}", quoted(&plan.columns[index].name)))
        .collect();
    if let Some(index) = plan.age_of_deletes() {
        let column = &plan.columns[index];
        let name = quoted(&column.name);
        columns.push(format!("{} AS age", unnested(key.len(), &column.column_type)));
        matches.push(format!("(target.{name} IS NULL OR target.{name} <= gone.age)"));
    }
    format!(
        "DELETE FROM {} AS target USING (SELECT {}) AS gone WHERE {}",
        plan.table,
        columns.join(", "),
        matches.join(" AND ")
    )
}

/// The values of the array that is parameter `place`, counted from 0.
fn unnested(place: usize, column_type: &ColumnType) -> String {
    let values = format!("pg_catalog.unnest(${})", place + 1);
    match column_type {
        // Without a length, so that nothing is cut; compared with a column of type text, the index would not be used.
        ColumnType::Char(_) => format!("{values}::pg_catalog.bpchar"),
        ColumnType::Labelled(name) => format!("{values}::{name}"),
        _ => values,
    }
}

/// The type of an array of the column's values, and the type of its elements.
pub(crate) fn array_type(column_type: &ColumnType) -> (Type, Type) {
    match column_type {
        ColumnType::Boolean => (Type::BOOL_ARRAY, Type::BOOL),
        ColumnType::SmallInt => (Type::INT2_ARRAY, Type::INT2),
        ColumnType::Integer => (Type::INT4_ARRAY, Type::INT4),
        ColumnType::BigInt => (Type::INT8_ARRAY, Type::INT8),
        ColumnType::Real => (Type::FLOAT4_ARRAY, Type::FLOAT4),
        ColumnType::Double => (Type::FLOAT8_ARRAY, Type::FLOAT8),
        ColumnType::Numeric(_) => (Type::NUMERIC_ARRAY, Type::NUMERIC),
        ColumnType::Text | ColumnType::Varchar(_) | ColumnType::Char(_) | ColumnType::Labelled(_) => {
            (Type::TEXT_ARRAY, Type::TEXT)
        }
        ColumnType::Uuid => (Type::UUID_ARRAY, Type::UUID),
        ColumnType::Bytea => (Type::BYTEA_ARRAY, Type::BYTEA),
        ColumnType::TimestampTz => (Type::TIMESTAMPTZ_ARRAY, Type::TIMESTAMPTZ),
        ColumnType::Timestamp => (Type::TIMESTAMP_ARRAY, Type::TIMESTAMP),
        ColumnType::Date => (Type::DATE_ARRAY, Type::DATE),
        ColumnType::Time => (Type::TIME_ARRAY, Type::TIME),
        ColumnType::Json => (Type::JSON_ARRAY, Type::JSON),
        ColumnType::Jsonb => (Type::JSONB_ARRAY, Type::JSONB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{FilledBy, PlannedColumn, TableName};
    use txconnect_connector_api::KafkaColumn;

    fn table(types: &[ColumnType], mode: PlannedWrite) -> Table {
        let columns = types.iter().enumerate().map(|(index, column_type)| PlannedColumn {
            name: format!("c\"{index}"),
            filled_by: FilledBy::Property,
            column_type: column_type.clone(),
            nullable: true,
            second_digits: 6,
            description: None,
        });
        let name = TableName { schema: "S s".into(), table: "select".into() };
        Table::new(TablePlan { table: name, columns: columns.collect(), mode, description: None }, None)
    }

    #[test]
    fn an_upsert_keeps_the_newer_row_and_deletes_by_the_whole_key() {
        let mode = PlannedWrite::Upsert { key: vec![1, 0], newest_by: Some(2) };
        let table = table(&[ColumnType::Uuid, ColumnType::Char(3), ColumnType::BigInt], mode);
        assert_eq!(
            table.put,
            r#"INSERT INTO "S s"."select" AS target ("c""0", "c""1", "c""2") SELECT pg_catalog.unnest($1), pg_catalog.unnest($2)::pg_catalog.bpchar, pg_catalog.unnest($3) ON CONFLICT ("c""1", "c""0") DO UPDATE SET "c""2" = EXCLUDED."c""2" WHERE target."c""2" IS NULL OR target."c""2" <= EXCLUDED."c""2""#
        );
        assert_eq!(
            table.delete,
            r#"DELETE FROM "S s"."select" AS target USING (SELECT pg_catalog.unnest($1)::pg_catalog.bpchar AS key0, pg_catalog.unnest($2) AS key1) AS gone WHERE target."c""1" = gone.key0 AND target."c""0" = gone.key1"#
        );
    }

    #[test]
    fn a_deletion_with_an_age_leaves_newer_rows() {
        let mode = PlannedWrite::Upsert { key: vec![0], newest_by: Some(1) };
        let mut plan = table(&[ColumnType::Uuid, ColumnType::TimestampTz], mode).plan;
        plan.columns[1].filled_by = FilledBy::Kafka(KafkaColumn::Timestamp);
        let table = Table::new(plan, None);
        assert_eq!(table.delete_columns, [0, 1]);
        assert_eq!(
            table.delete,
            r#"DELETE FROM "S s"."select" AS target USING (SELECT pg_catalog.unnest($1) AS key0, pg_catalog.unnest($2) AS age) AS gone WHERE target."c""0" = gone.key0 AND (target."c""1" IS NULL OR target."c""1" <= gone.age)"#
        );
    }

    #[test]
    fn rows_that_are_all_key_or_may_not_change_do_nothing_where_they_are_there() {
        for mode in [
            PlannedWrite::Upsert { key: vec![0], newest_by: None },
            PlannedWrite::InsertIgnore { key: vec![0] },
        ] {
            let table = table(&[ColumnType::Labelled("public.mood".into())], mode);
            assert_eq!(
                table.put,
                r#"INSERT INTO "S s"."select" AS target ("c""0") SELECT pg_catalog.unnest($1)::public.mood ON CONFLICT ("c""0") DO NOTHING"#
            );
        }
    }

    #[test]
    fn a_table_without_a_key_takes_rows_by_copy_alone() {
        let table = table(&[ColumnType::Text], PlannedWrite::Append);
        assert_eq!(table.copy, r#"COPY "S s"."select" ("c""0") FROM STDIN WITH (FORMAT binary)"#);
        assert_eq!((table.put.as_str(), table.delete.as_str()), ("", ""));
    }
}
