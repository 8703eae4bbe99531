//! Parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use evidence_gateway::cli::{Cli, describe, run, say};

/// async-graphql allocates per field of a document; mimalloc takes about a fifth off a small request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match describe(&error) {
            Some(line) => {
                say(&line);
                return ExitCode::from(2);
            }
            None => error.exit(),
        },
    };
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let field = error.field().map(|field| format!("{field} ")).unwrap_or_default();
            let cause = error.internal_text().map(|text| format!(": {text}")).unwrap_or_default();
            say(&format!("{field}{error}{cause}"));
            ExitCode::FAILURE
        }
    }
}
