//! The table of a topic: made where it is missing, and looked at before anything is written.

use txconnect_connector_api::SinkError;

use crate::catalog::{look_up, unchanged};
use crate::connect::Session;
use crate::error::{CallFailure, Trouble};
use crate::fit::{ExistingTable, Misfit, fit};
use crate::offsets::CREATION_LOCK;
use crate::plan::{TableName, TablePlan, quoted};
use crate::statements::Table;

/// The table that takes the rows of `plan`, as it really is; made where it is missing, if `create`.
pub(crate) async fn ready(session: &Session, plan: &TablePlan, create: bool) -> Result<Table, SinkError> {
    let name = format!("{}.{}", plan.table.schema, plan.table.table);
    let existing = match look_up(session, &plan.table).await? {
        Some(existing) => existing,
        None if create => make(session, plan).await?,
        None => {
            return Err(SinkError::fatal(
                format!("the table `{name}` does not exist"),
                format!("create it, or set `table_changes: create`: {}", one_line(&plan.ddl())),
            ));
        }
    };
    let fitted = fit(plan, &existing).map_err(|misfits| misfit_error(plan, &misfits))?;
    let unchanged = unchanged(session, &fitted).await?;
    Ok(Table::new(fitted, Some(unchanged)))
}

/// All that does not fit, and all ways out.
pub(crate) fn misfit_error(plan: &TablePlan, misfits: &[Misfit]) -> SinkError {
    let problems: Vec<&str> = misfits.iter().map(|misfit| misfit.message.as_str()).collect();
    let ways_out: Vec<&str> = misfits.iter().map(|misfit| misfit.way_out.as_str()).collect();
    let TableName { schema, table } = &plan.table;
    SinkError::fatal(
        format!("the table `{schema}.{table}` does not take the rows: {}", problems.join("; ")),
        ways_out.join("; "),
    )
}

/// Makes the table, unless another process does at this moment.
async fn make(session: &Session, plan: &TablePlan) -> Result<ExistingTable, SinkError> {
    let doing = format!("creating the table `{}.{}`", plan.table.schema, plan.table.table);
    let patience = session.lock_timeout();
    let settings = format!(
        "SET LOCAL lock_timeout = {patience}; SELECT pg_catalog.pg_advisory_xact_lock({CREATION_LOCK});"
    );
    session.begin(&settings).await?;
    let made = make_locked(session, plan, &doing).await;
    let committed = match made {
        Ok(existing) => {
            session.within(&doing, session.client().batch_execute("COMMIT")).await.map(|()| existing)
        }
        Err(failure) => {
            session.roll_back().await;
            Err(failure)
        }
    };
    match committed.map_err(|failure| failure.trouble()) {
        Ok(Some(existing)) => Ok(existing),
        Ok(None) => Err(SinkError::transient(format!("{doing}: it was dropped at the same moment"))),
        Err(Trouble::Refused { cause, hint }) => {
            Err(SinkError::fatal(cause, format!("{hint}; or have it created: {}", one_line(&plan.ddl()))))
        }
        Err(trouble) => Err(trouble.into()),
    }
}

async fn make_locked(
    session: &Session,
    plan: &TablePlan,
    doing: &str,
) -> Result<Option<ExistingTable>, CallFailure> {
    if let Some(existing) = look_up(session, &plan.table).await? {
        return Ok(Some(existing));
    }
    // CREATE SCHEMA needs a right on the database even where the schema is there.
    let schema = quoted(&plan.table.schema);
    let parameters: &[(&(dyn tokio_postgres::types::ToSql + Sync), _)] =
        &[(&schema, tokio_postgres::types::Type::TEXT)];
    let statement = "SELECT pg_catalog.to_regnamespace($1) IS NULL";
    let row = session.within(doing, session.client().query_typed_one(statement, parameters)).await?;
    let is_missing: bool = row.try_get(0).map_err(|error| session.failure(doing, error))?;
    let mut statements = Vec::with_capacity(3);
    if is_missing {
        statements.push(plan.table.create_schema());
    }
    statements.push(plan.create_table());
    statements.push(plan.create_comments());
    session.within(doing, session.client().batch_execute(&statements.join("\n"))).await?;
    tracing::info!(table = %plan.table, "created the table");
    look_up(session, &plan.table).await
}

fn one_line(statements: &str) -> String {
    statements.split_whitespace().collect::<Vec<_>>().join(" ")
}
