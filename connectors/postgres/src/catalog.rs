//! What the catalogs of the server say about a table.

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::connect::Session;
use crate::ddl::literal;
use crate::error::CallFailure;
use crate::fit::{ExistingColumn, ExistingTable, Identity, RelationKind, UniqueKey};
use crate::plan::{TableName, TablePlan};

const RELATION: &str = "\
    SELECT relation.oid, relation.relkind::text, ARRAY( \
        SELECT attribute.attname::text FROM unnest(partitioned.partattrs::int2[]) WITH ORDINALITY AS part (number, place) \
        JOIN pg_catalog.pg_attribute AS attribute \
            ON attribute.attrelid = relation.oid AND attribute.attnum = part.number ORDER BY part.place) \
    FROM pg_catalog.pg_class AS relation \
    LEFT JOIN pg_catalog.pg_partitioned_table AS partitioned ON partitioned.partrelid = relation.oid \
    WHERE relation.oid = pg_catalog.to_regclass($1)";

/// A domain may stand on a domain: the layers are followed down to a type that is none.
const COLUMNS: &str = "\
    WITH RECURSIVE layer AS ( \
        SELECT attnum, atttypid AS type, atttypmod AS modifier, attnotnull AS not_null, atthasdef AS has_default, \
            0 AS depth \
        FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped \
        UNION ALL \
        SELECT layer.attnum, domain.typbasetype, \
            CASE WHEN layer.modifier < 0 THEN domain.typtypmod ELSE layer.modifier END, \
            layer.not_null OR domain.typnotnull, layer.has_default OR domain.typdefault IS NOT NULL, layer.depth + 1 \
        FROM layer JOIN pg_catalog.pg_type AS domain ON domain.oid = layer.type AND domain.typtype = 'd' \
    ), bottom AS (SELECT DISTINCT ON (attnum) * FROM layer ORDER BY attnum, depth DESC) \
    SELECT attribute.attname::text, bottom.type, bottom.modifier, \
        pg_catalog.format_type(attribute.atttypid, attribute.atttypmod), base.typtype = 'e', bottom.not_null, \
        bottom.has_default, attribute.attgenerated <> '', attribute.attidentity::text \
    FROM pg_catalog.pg_attribute AS attribute \
    JOIN bottom ON bottom.attnum = attribute.attnum \
    JOIN pg_catalog.pg_type AS base ON base.oid = bottom.type \
    WHERE attribute.attrelid = $1 ORDER BY attribute.attnum";

/// `indkey` also lists columns that an index only includes; they come last.
const UNIQUE_KEYS: &str = "\
    SELECT ARRAY( \
        SELECT attribute.attname::text FROM unnest(index.indkey::int2[]) WITH ORDINALITY AS part (number, place) \
        JOIN pg_catalog.pg_attribute AS attribute \
            ON attribute.attrelid = index.indrelid AND attribute.attnum = part.number \
        WHERE part.place <= index.indnkeyatts ORDER BY part.place), \
        index.indpred IS NOT NULL, NOT index.indimmediate \
    FROM pg_catalog.pg_index AS index \
    WHERE index.indrelid = $1 AND index.indisunique AND index.indisvalid AND index.indexprs IS NULL \
    ORDER BY index.indexrelid";

/// Looks a table up; `None` where there is none of that name.
pub(crate) async fn look_up(
    session: &Session,
    table: &TableName,
) -> Result<Option<ExistingTable>, CallFailure> {
    let doing = format!("looking at `{}.{}`", table.schema, table.table);
    let name = table.to_string();
    let ask = async |statement: &str, parameter: (&(dyn ToSql + Sync), Type)| {
        session.within(&doing, session.client().query_typed(statement, &[parameter])).await
    };
    let relation = ask(RELATION, (&name, Type::TEXT)).await?;
    let Some(relation) = relation.first() else { return Ok(None) };
    let unreadable = |error| session.failure(&doing, error);
    let (oid, kind, partition_key) = read_relation(relation).map_err(unreadable)?;
    let columns = ask(COLUMNS, (&oid, Type::OID)).await?;
    let unique_keys = ask(UNIQUE_KEYS, (&oid, Type::OID)).await?;
    Ok(Some(ExistingTable {
        kind,
        columns: columns.iter().map(read_column).collect::<Result<_, _>>().map_err(unreadable)?,
        unique_keys: unique_keys.iter().map(read_unique_key).collect::<Result<_, _>>().map_err(unreadable)?,
        partition_key,
    }))
}

type Relation = (u32, RelationKind, Vec<String>);

fn read_relation(row: &Row) -> Result<Relation, tokio_postgres::Error> {
    let kind: &str = row.try_get(1)?;
    Ok((row.try_get(0)?, RelationKind::from_code(kind.bytes().next().unwrap_or_default()), row.try_get(2)?))
}

fn read_column(row: &Row) -> Result<ExistingColumn, tokio_postgres::Error> {
    Ok(ExistingColumn {
        name: row.try_get(0)?,
        type_oid: row.try_get(1)?,
        type_modifier: row.try_get(2)?,
        type_name: row.try_get(3)?,
        is_enum: row.try_get(4)?,
        not_null: row.try_get(5)?,
        has_default: row.try_get(6)?,
        generated: row.try_get(7)?,
        identity: match row.try_get(8)? {
            "a" => Some(Identity::Always),
            "d" => Some(Identity::ByDefault),
            _ => None,
        },
    })
}

fn read_unique_key(row: &Row) -> Result<UniqueKey, tokio_postgres::Error> {
    Ok(UniqueKey { columns: row.try_get(0)?, partial: row.try_get(1)?, deferrable: row.try_get(2)? })
}

/// What `columns` of `table` are, as one value: it is another one when a column is altered, renamed or dropped, and the
/// same one when others come or go. NULL where there is no such table.
fn description(table: &TableName, columns: &[&str]) -> String {
    let names: Vec<String> = columns.iter().map(|name| literal(name)).collect();
    format!(
        "(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', attname, atttypid, atttypmod, attgenerated, \
            attidentity), ',' ORDER BY attname) \
         FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass({}) AND attnum > 0 \
            AND NOT attisdropped AND attname IN ({}))",
        literal(&table.to_string()),
        names.join(", ")
    )
}

/// A condition that holds as long as the columns that rows of `plan` bring are what they are now.
pub(crate) async fn unchanged(session: &Session, plan: &TablePlan) -> Result<String, CallFailure> {
    let doing = format!("looking at the columns of `{}.{}`", plan.table.schema, plan.table.table);
    let columns: Vec<&str> = plan.columns.iter().map(|column| column.name.as_str()).collect();
    let description = description(&plan.table, &columns);
    let statement = format!("SELECT coalesce({description}, '')");
    let row = session.within(&doing, session.client().query_typed_one(&statement, &[])).await?;
    let now: String = row.try_get(0).map_err(|error| session.failure(&doing, error))?;
    Ok(format!("coalesce({description} = {}, false)", literal(&now)))
}
