//! The bare round trip: what the lab's path costs without generator, sink and rule, to hold `latency --target none`
//! against.

use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use fanq::{CpuId, Timestamp};
use serde::Serialize;

use crate::lab::{Entered, Lab, LabOptions, Place, enter};
use crate::statistics::Delays;
use crate::trial::PORT;

/// Options of `fanq-bench ping-pong`.
#[derive(Debug, Args)]
pub(crate) struct PingPongArgs {
    /// Round trips
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// Round trips a second
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    /// UDP payload bytes
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=8000))]
    size: u16,
    #[command(flatten)]
    lab: LabOptions,
}

#[derive(Debug, Serialize)]
struct PingPongResult {
    schema: &'static str,
    round_trips: u64,
    /// Half of the median round trip.
    one_way_us_p50: f64,
    round_trip_us_p50: f64,
    round_trip_us_p99: f64,
}

/// `fanq-bench ping-pong`
pub(crate) fn run(args: &PingPongArgs) -> anyhow::Result<ExitCode> {
    ensure!(
        (1.0..=1e5).contains(&args.rate),
        "--rate {}: 1 to 100000 round trips a second",
        args.rate
    );
    let lab = match enter(&args.lab)? {
        Entered::Outside(code) => return Ok(code),
        Entered::Inside(lab) => lab,
    };
    let trips = measure(&lab, args)?;
    let at = |percent| trips.percentile(percent).unwrap_or(f64::NAN);
    crate::print_json(&PingPongResult {
        schema: "fanq.ping-pong/1",
        round_trips: trips.count(),
        one_way_us_p50: at(50.0) / 2.0,
        round_trip_us_p50: at(50.0),
        round_trip_us_p99: at(99.0),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn measure(lab: &Lab, args: &PingPongArgs) -> anyhow::Result<Delays> {
    let pair = lab.pairs.first().context("a lab has a pair")?;
    let to = SocketAddr::new(pair.destination_v4.into(), PORT);
    let echo = lab.in_namespace(lab.destination(), || UdpSocket::bind(to))?.context("the echo")?;
    echo.set_read_timeout(Some(PATIENCE))?;
    let from = SocketAddr::new(pair.client_v4.into(), 0);
    let client =
        lab.in_namespace(Place::Client, || UdpSocket::bind(from))?.context("the client")?;
    client.set_read_timeout(Some(PATIENCE))?;
    let (load_cpu, echo_cpu) = (lab.load_cpus[0], lab.queue_cpus[0]);
    std::thread::scope(|scope| {
        let answering = scope.spawn(move || answer(&echo, echo_cpu, args.count));
        let asking = scope.spawn(move || ask(&client, to, load_cpu, args));
        let trips = asking.join().unwrap_or_else(|_| bail!("the client panicked"));
        answering.join().unwrap_or_else(|_| bail!("the echo panicked"))?;
        trips
    })
}

fn ask(
    client: &UdpSocket,
    to: SocketAddr,
    cpu: CpuId,
    args: &PingPongArgs,
) -> anyhow::Result<Delays> {
    ensure!(fanq::pin_to(cpu), "cannot pin the client to CPU {cpu}");
    let (mut trips, mut datagram) = (Delays::new(), vec![0; usize::from(args.size)]);
    let gap = Duration::from_secs_f64(1.0 / args.rate);
    for _ in 0..args.count {
        let start = Timestamp::now();
        client.send_to(&datagram, to).context("sending a ping")?;
        client.recv(&mut datagram).context("no pong came back")?;
        let trip = Timestamp::now().since(start);
        trips.record(u64::try_from(trip.as_nanos()).unwrap_or(u64::MAX));
        // By spinning, as the generator waits: a CPU that sleeps is slow to wake.
        while Timestamp::now().since(start) < gap {
            std::hint::spin_loop();
        }
    }
    Ok(trips)
}

fn answer(echo: &UdpSocket, cpu: CpuId, count: u32) -> anyhow::Result<()> {
    ensure!(fanq::pin_to(cpu), "cannot pin the echo to CPU {cpu}");
    let mut datagram = vec![0; 65_536];
    for _ in 0..count {
        let (length, from) = echo.recv_from(&mut datagram).context("no ping came")?;
        echo.send_to(&datagram[..length], from).context("sending a pong")?;
    }
    Ok(())
}

/// How long one end waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);
