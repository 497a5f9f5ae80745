//! `--metrics ADDRESS` of `fanq run` and `fanq accel`: their numbers for Prometheus.
//!
//! ```text
//! address   where to listen: loopback unless another is named
//! http      GET /metrics, and nothing else
//! render    the numbers as text, in either of two formats
//! process   when a process was started and what it has used
//! ```
//!
//! Invariant: a scrape reads counters and, once, the kernel's table of queues; it takes nothing from a worker and asks
//! nothing of one. docs/METRICS.md has every metric.

mod address;
mod http;
mod process;
mod render;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use fanq::{CpuTime, EngineStats};
use rustix::net;

use crate::endpoint::{Bounds, Endpoint, Listener};
use crate::inspector::PolicyAccount;
use crate::notice;

pub(crate) use address::MetricsAddress;
use http::MetricsService;
pub(crate) use process::{ProcessTimes, process_start};

/// What is told at one scrape.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) stats: EngineStats,
    /// The most packets that may wait in a queue, where that is known.
    pub(crate) queue_maxlen: Option<u32>,
    pub(crate) policy: Option<PolicyAccount>,
    /// Lines of the log, written and lost.
    pub(crate) eve: Option<(u64, u64)>,
    /// When the process was started, as far as that is known.
    pub(crate) started: Option<SystemTime>,
    pub(crate) cpu: Option<CpuTime>,
    /// How often there was a scrape, this one included.
    pub(crate) scrapes: u64,
    /// The name of the program that is accelerated, if this is about one.
    pub(crate) accelerated: Option<String>,
    /// Metrics that nobody counts here, by their names without `_total`: they are left out.
    pub(crate) uncounted: &'static [&'static str],
}

/// What can be scraped: a run, or an accelerated program.
pub(crate) trait Scraped: Send + 'static {
    fn snapshot(&self) -> Snapshot;
}

/// The port, taken, while nobody answers there yet.
#[derive(Debug)]
pub(crate) struct OpenMetrics {
    listener: TcpListener,
}

impl OpenMetrics {
    /// Takes the port. One that is `shared` may be taken by the process that comes next as well, of the same user:
    /// until the first of both ends, a scrape reaches either.
    ///
    /// # Errors
    /// It is taken, or the address is none of this machine's.
    pub(crate) fn open(address: MetricsAddress, shared: bool) -> anyhow::Result<Self> {
        let listener = listen(address.0, shared).with_context(|| address.remedy())?;
        Ok(Self { listener })
    }

    /// Answers there until the endpoint is dropped.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub(crate) fn serve(self, run: impl Scraped) -> anyhow::Result<Endpoint> {
        let place = self.listener.local_addr().context("asking for the port of --metrics")?;
        let service = MetricsService::new(run);
        let endpoint =
            Endpoint::start("fanq-metrics", Listener::Tcp(self.listener), BOUNDS, service)
                .context("starting the thread of --metrics")?;
        notice::normal(format_args!("metrics: http://{place}/metrics"));
        Ok(endpoint)
    }
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    if !shared {
        return TcpListener::bind(address);
    }
    let family =
        if address.is_ipv4() { net::AddressFamily::INET } else { net::AddressFamily::INET6 };
    let kind = net::SocketType::STREAM;
    let socket = net::socket_with(family, kind, net::SocketFlags::CLOEXEC, None)?;
    net::sockopt::set_socket_reuseaddr(&socket, true)?;
    net::sockopt::set_socket_reuseport(&socket, true)?;
    net::bind(&socket, &address)?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// As the standard library has it.
const BACKLOG: i32 = 128;

const BOUNDS: Bounds = Bounds {
    connections: 128,
    request_bytes: 8192,
    request_time: Duration::from_secs(5),
    idle_time: Duration::from_secs(5),
    answer_time: Duration::from_secs(5),
};
