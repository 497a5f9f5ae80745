//! The `fanq-bench` program: makes load, receives it, and measures what a queue configuration costs. One
//! subcommand, one module.
//!
//! Invariant: traffic goes only where the command line says, in a bounded amount; every result is one JSON object
//! on standard output.

mod codec;
mod compare;
mod disorder;
mod lab;
mod load;
mod machine;
mod manual;
mod measure;
mod pipes;
mod receive;
mod report;
mod result;
mod search;
mod send;
mod sink;
mod stamp;
mod statistics;
mod sys;
mod target;
mod tcp;
mod trial;
mod verify_fanout;
mod versus;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Load, sinks and measurements for NFQUEUE programs.
#[derive(Debug, Parser)]
#[command(name = "fanq-bench", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send numbered UDP packets from one thread pinned to each CPU.
    Send(send::SendArgs),
    /// Receive what `send` sends: count it, find losses, duplicates and delays.
    Receive(receive::ReceiveArgs),
    /// Send one stream of bytes over TCP.
    TcpSend(tcp::TcpSendArgs),
    /// Receive that stream and compare every byte.
    TcpReceive(tcp::TcpReceiveArgs),
    /// Run the engine and check, packet by packet, that each came in its sender's CPU's queue.
    VerifyFanout(verify_fanout::VerifyFanoutArgs),
    /// Serve queues out of order, with verdicts for packets that do not exist: a stress for the kernel.
    Disorder(disorder::DisorderArgs),
    /// Measure decoding and joining alone, without a kernel.
    Codec(codec::CodecArgs),
    /// Compare `fanq run` with a plain NFQUEUE loop: CPU per packet, losses, delay at low load.
    Versus(versus::VersusArgs),
    /// Make, enter and end network namespaces to measure in.
    Lab(lab::LabArgs),
    /// Make a load, through any target or none, and say what arrives.
    Load(measure::LoadArgs),
    /// Measure all in one run: loss-free rates, delays, losses against load, CPU time.
    Run(measure::SuiteArgs),
    /// Measure CPU time per packet, targets in turn.
    Cpu(measure::CpuArgs),
    /// Measure one-way delay at given rates, targets in turn.
    Latency(measure::LatencyArgs),
    /// Search the highest rate with no loss, and with 0.5 % of it.
    Ndr(measure::NdrArgs),
    /// Measure losses from a tenth to the double of a rate.
    Curve(measure::CurveArgs),
    /// Measure TCP, targets in turn: bulk through one connection, and short connections.
    Tcp(measure::TcpArgs),
    /// Measure the bare round trip over the lab's path, without a rule.
    PingPong(measure::PingPongArgs),
    /// Measure CPU time per packet of fanq with every combination of some options.
    Sweep(measure::SweepArgs),
    /// Compare two result files: exit status 0 same or better, 2 worse, 3 not comparable.
    Compare(compare::CompareArgs),
    /// Draw one page, or one chart, from the result of a run.
    Report(report::ReportArgs),
    /// Print the JSON Schema of a result.
    Schema,
    /// Print the completions of a shell.
    Completions(manual::CompletionsArgs),
    /// Write the manual's pages.
    Man(manual::ManArgs),
}

fn main() -> ExitCode {
    if let Err(error) = pipes::end_with_the_reader() {
        eprintln!("fanq-bench: SIGPIPE cannot be handled: {error}");
        return ExitCode::FAILURE;
    }
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(asked) => return say(&asked),
    };
    run(command).unwrap_or_else(|error| {
        eprintln!("fanq-bench: {error:#}");
        ExitCode::FAILURE
    })
}

/// What clap has to say, with its exit status; but `compare` means something else by 2.
fn say(asked: &clap::Error) -> ExitCode {
    // Where even this cannot be printed, nobody is left to say it to.
    let _ = asked.print();
    let compares = std::env::args().nth(1).is_some_and(|word| word == "compare");
    match u8::try_from(asked.exit_code()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(status) if !compares => ExitCode::from(status),
        _ => ExitCode::FAILURE,
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Send(args) => send::run(&args)?,
        Command::Receive(args) => receive::run(&args)?,
        Command::TcpSend(args) => tcp::send(&args)?,
        Command::TcpReceive(args) => tcp::receive(&args)?,
        Command::VerifyFanout(args) => verify_fanout::run(&args)?,
        Command::Disorder(args) => disorder::run(&args)?,
        Command::Codec(args) => codec::run(&args)?,
        Command::Versus(args) => return versus::run(&args),
        Command::Lab(args) => return lab::run(&args),
        Command::Load(args) => return measure::load(&args),
        Command::Run(args) => return measure::suite(&args),
        Command::Cpu(args) => return measure::cpu(&args),
        Command::Latency(args) => return measure::latency(&args),
        Command::Ndr(args) => return measure::ndr(&args),
        Command::Curve(args) => return measure::curve(&args),
        Command::Tcp(args) => return measure::tcp(&args),
        Command::PingPong(args) => return measure::ping_pong(&args),
        Command::Sweep(args) => return measure::sweep(&args),
        Command::Compare(args) => return compare::run(&args),
        Command::Report(args) => report::run(&args)?,
        Command::Schema => report::schema()?,
        Command::Completions(args) => manual::completions(&args, Cli::command()),
        Command::Man(args) => manual::man(&args, Cli::command())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a result as one line of JSON.
fn print_json(result: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(result)?);
    Ok(())
}
