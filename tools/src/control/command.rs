//! `fanq control`: asks a running `fanq run` or `fanq accel`.
//!
//! Invariant: where it is not clear which program is meant, none is asked.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Client, PATIENCE};
use super::place::{ControlAddress, ControlSocket, sockets};
use super::protocol::Request;
use crate::usage;

/// Options of `fanq control`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fanq control statistics
  fanq control --pid 4711 get")]
pub(crate) struct ControlArgs {
    /// The process to ask [default: the only one in this network namespace]
    #[arg(long, conflicts_with = "socket")]
    pid: Option<u32>,
    /// The socket file of a program that runs with --control PATH
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the account so far, as JSON
    #[command(after_help = "Examples:\n  fanq control statistics | jq .totals")]
    Statistics,
    /// Print the settings in force, as JSON
    #[command(after_help = "Examples:\n  fanq control get")]
    Get,
    /// Change one: copy-range (full, BYTES or meta) or log-level (quiet, normal or verbose)
    #[command(after_help = "Examples:\n  fanq control set copy-range 128")]
    Set {
        /// copy-range or log-level
        key: String,
        /// Its new value
        value: String,
    },
    /// Read the rules again and open the log anew, as SIGHUP does
    #[command(after_help = "Examples:\n  fanq control reload")]
    Reload,
}

/// Asks, and prints the answer to standard output.
pub(crate) fn run(args: &ControlArgs) -> anyhow::Result<()> {
    let address = match (&args.socket, args.pid) {
        (Some(path), _) => ControlAddress::File(path.clone()),
        (None, Some(pid)) => ControlAddress::Process(pid),
        (None, None) => {
            let found = sockets().context("looking for programs in /proc/thread-self/net/unix")?;
            the_only(&found)?.address()
        }
    };
    let mut client = Client::connect(&address)?;
    let answer = match &args.what {
        What::Statistics => client.statistics(),
        What::Get => client.ask(&Request::Get, PATIENCE),
        What::Set { key, value } => {
            client.ask(&Request::Set { key: key.clone(), value: value.clone() }, PATIENCE)
        }
        What::Reload => client.ask(&Request::Reload, RELOAD_PATIENCE),
    };
    match answer? {
        Value::String(words) => println!("{words}"),
        answer => println!("{answer:#}"),
    }
    Ok(())
}

fn the_only(found: &[ControlSocket]) -> anyhow::Result<ControlSocket> {
    match found {
        [] => anyhow::bail!(
            "no fanq run serves in this network namespace; for one in another: nsenter --net=/run/netns/NAME fanq \
             control ...; for one with --control PATH: --socket PATH"
        ),
        [one] => Ok(*one),
        several => {
            let pids: Vec<_> = several.iter().map(|socket| socket.pid.to_string()).collect();
            Err(usage(format!("several run here: name one with --pid: {}", pids.join(", "))))
        }
    }
}

/// Large rules files take seconds to compile.
const RELOAD_PATIENCE: Duration = Duration::from_secs(120);
