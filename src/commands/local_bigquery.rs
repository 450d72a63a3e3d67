//! `txconnect local-bigquery`: our BigQuery alone.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use txconnect_local_bigquery::{Fault, LocalBigQuery, Options};

use super::signals::EndSignals;
use super::{CommandError, print_result, runtime};

/// Run a local BigQuery.
///
/// Speaks the REST interface of BigQuery, keeps tables in memory, and forgets them when it ends. Clients find
/// it by `BIGQUERY_EMULATOR_HOST`, or by `endpoint:` in a pipeline file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  txconnect local-bigquery
  BIGQUERY_EMULATOR_HOST=127.0.0.1:9050 GCP_PROJECT=local txconnect run pipelines/transactions.yaml
  txconnect local-bigquery --listen 127.0.0.1:0
      Takes a free port; the first line of the output names it.
  txconnect local-bigquery --faults faults.json
      Fails as the script says, to see how a pipeline gets on.")]
pub struct LocalBigQueryArguments {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9050")]
    pub listen: SocketAddr,
    /// A JSON file with the faults to play
    #[arg(long, value_name = "FILE")]
    pub faults: Option<PathBuf>,
    /// Count rows and do not read or keep them: for measuring what a client costs
    #[arg(long)]
    pub count_only: bool,
}

/// Serves until SIGTERM or SIGINT.
pub fn serve(arguments: &LocalBigQueryArguments) -> Result<(), CommandError> {
    let faults = match &arguments.faults {
        None => Vec::new(),
        Some(path) => {
            let wrong =
                |error: &dyn std::fmt::Display| CommandError::Usage(format!("{}: {error}", path.display()));
            let script = std::fs::read(path).map_err(|error| wrong(&error))?;
            Fault::parse_script(&script).map_err(|error| wrong(&error))?
        }
    };
    runtime()?.block_on(async {
        let mut signals = EndSignals::take_over()?;
        let options = Options {
            listen: arguments.listen,
            faults,
            count_only: arguments.count_only,
            ..Options::default()
        };
        let server = LocalBigQuery::start(options).await.map_err(CommandError::failed)?;
        let address = server.address();
        print_result(&format!(
            "BIGQUERY_EMULATOR_HOST={address}\nlocal BigQuery listens on {}; Ctrl-C ends it and forgets its tables\n",
            server.base_url()
        ))?;
        signals.next().await;
        server.stop().await;
        Ok(())
    })
}
