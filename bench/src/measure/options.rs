//! What every measuring command takes: targets, load, lab, and where the result goes.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::ensure;
use clap::Args;
use fanq::QueueRange;

use crate::lab::{Lab, LabOptions};
use crate::load::capture::Capture;
use crate::load::frame::Template;
use crate::load::replay::Pace;
use crate::result::{
    Arrivals, CaptureSetting, Family, FlowChoice, FrameSize, LoadKind, LoadSetting,
};
use crate::target::{Service, Target};
use crate::trial::Replay;

/// Options of every measuring command.
#[derive(Debug, Args)]
pub(crate) struct MeasureOptions {
    /// What to measure, as often as wanted: none, kernel, fanq, fanq:OPTIONS, limit, multi, single,
    /// libnetfilter_queue, nfq, netfilterqueue, or exec:COMMAND with {queues} (0-3) or {first} and {last} in it;
    /// accel: before one of the last four runs it under fanq accel;
    /// NAME=TARGET gives it another name. The first is what the others are compared with
    #[arg(long = "target", value_name = "TARGET", default_value = "fanq")]
    pub(crate) targets: Vec<Target>,
    #[command(flatten)]
    pub(crate) load: LoadOptions,
    /// Packets that the kernel may hold in one queue
    #[arg(long, default_value_t = 4096)]
    pub(crate) queue_maxlen: u32,
    /// Bytes of each socket's receive buffer that targets are asked to set
    #[arg(long, default_value_t = 64 << 20)]
    pub(crate) rcvbuf: usize,
    /// Measure the first target once more under another name: how far it differs from itself is the noise
    #[arg(long)]
    pub(crate) again: bool,
    /// Where the result goes
    #[arg(long, value_name = "FILE", default_value = "fanq-bench.json")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) lab: LabOptions,
}

/// Options of the load.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadOptions {
    /// What makes it: xdp, udp, or pcap:FILE, a capture (pcap or pcapng, Ethernet or bare IP) as fast as it goes or at
    /// the rate of the trial, without delays [default: xdp, without root udp]
    #[arg(long = "load", value_name = "xdp|udp|pcap:FILE")]
    pub(crate) source: Option<LoadSource>,
    /// Bytes of a frame from the Ethernet header on, or imix (28 of 74, 16 of 570, 4 of 1518)
    #[arg(long, default_value = "106", value_name = "BYTES|imix", value_parser = frame_size)]
    pub(crate) frame: FrameSize,
    /// Flows of each sender, 1 to 100000
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) flows: u32,
    /// How flows are chosen
    #[arg(long, value_enum, default_value_t = FlowChoice::Uniform)]
    pub(crate) flow_choice: FlowChoice,
    /// When packets are due: constant, poisson, or burst:COUNT
    #[arg(long, default_value = "constant", value_parser = arrivals)]
    pub(crate) arrivals: Arrivals,
    /// Address family
    #[arg(long, value_enum, default_value_t = Family::Ipv4)]
    pub(crate) family: Family,
    /// The share of datagrams that go as two IP fragments each, 0 to 1; with --load udp
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    pub(crate) fragments: f64,
}

impl LoadOptions {
    /// Settles what was left open, and refuses what cannot be made.
    pub(crate) fn settle(&self, lab: &Lab) -> anyhow::Result<LoadSetting> {
        let default = if lab.user_namespace { LoadKind::Udp } else { LoadKind::Xdp };
        let kind = self.source.as_ref().map_or(default, LoadSource::kind);
        ensure!(
            !(kind == LoadKind::Xdp && lab.user_namespace),
            "--load xdp loads a BPF program, which needs root; take --load udp"
        );
        ensure!(
            self.fragments == 0.0 || kind == LoadKind::Udp,
            "--fragments {}: only datagrams from a socket are cut; take --load udp",
            self.fragments
        );
        let least = Template::least_bytes(self.family);
        if let FrameSize::Bytes(bytes) = self.frame {
            ensure!(
                (least..=FRAME_BYTES_MAX).contains(&bytes),
                "--frame {bytes}: {least} to {FRAME_BYTES_MAX} bytes hold the headers and the stamp and fit the devices"
            );
        }
        ensure!(
            !(self.frame == FrameSize::Imix && self.family == Family::Ipv6),
            "--frame imix begins with 74 bytes, too few for IPv6 and the stamp; give a size of {least} or more"
        );
        Ok(LoadSetting {
            kind,
            frame: self.frame,
            flows: self.flows,
            flow_choice: self.flow_choice,
            arrivals: self.arrivals,
            family: self.family,
            fragments: self.fragments,
            capture: None,
        })
    }

    /// Reads the capture, if there is one to be replayed, and says in the setting what it is.
    pub(crate) fn capture(&self, setting: &mut LoadSetting) -> anyhow::Result<Option<Replay>> {
        let Some(LoadSource::Pcap(path)) = &self.source else { return Ok(None) };
        let capture = Capture::read(path)?;
        setting.capture = Some(CaptureSetting {
            name: capture.name.clone(),
            packets: capture.frames.len() as u64,
            bytes: capture.frames.iter().map(|frame| frame.bytes.len() as u64).sum(),
            seconds: capture.span().as_secs_f64(),
            left_out: capture.left_out as u64,
        });
        Ok(Some(Replay { capture: Arc::new(capture), pace: Pace::Unpaced }))
    }
}

/// Where a load's packets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoadSource {
    Xdp,
    Udp,
    Pcap(PathBuf),
}

impl LoadSource {
    fn kind(&self) -> LoadKind {
        match self {
            Self::Xdp => LoadKind::Xdp,
            Self::Udp => LoadKind::Udp,
            Self::Pcap(_) => LoadKind::Pcap,
        }
    }
}

impl FromStr for LoadSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("xdp", "") => Ok(Self::Xdp),
            ("udp", "") => Ok(Self::Udp),
            ("pcap", file) if !file.is_empty() => Ok(Self::Pcap(file.into())),
            _ => Err("xdp, udp, or pcap:FILE".to_owned()),
        }
    }
}

impl MeasureOptions {
    /// All targets, with the first once more if that was asked.
    pub(crate) fn all_targets(&self) -> Vec<Target> {
        let again = self.again.then(|| self.targets.first().map(Target::again)).flatten();
        self.targets.iter().cloned().chain(again).collect()
    }

    /// What targets are to serve: one queue for each CPU up to the last that fills one, so that queue i is CPU i's.
    pub(crate) fn service(&self, lab: &Lab) -> anyhow::Result<Service> {
        let last = lab.queue_cpus.iter().map(|cpu| cpu.0).max().unwrap_or(0);
        Ok(Service {
            queues: QueueRange::new(0, last)?,
            cpus: (0..=last).map(fanq::CpuId).collect(),
            maxlen: self.queue_maxlen,
            rcvbuf: self.rcvbuf,
        })
    }
}

/// Packets a second.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let pps: f64 = text.parse().map_err(|_| "packets a second".to_owned())?;
    if (1.0..=1e8).contains(&pps) {
        Ok(pps)
    } else {
        Err("1 to 100000000 packets a second".to_owned())
    }
}

/// The length of a trial.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "seconds".to_owned())?;
    let allowed = (0.01..=3600.0).contains(&seconds);
    if allowed { Ok(seconds) } else { Err("0.01 to 3600 seconds".to_owned()) }
}

/// How often something is done.
pub(crate) fn times(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(times @ 1..=10_000) => Ok(times),
        _ => Err("1 to 10000 times".to_owned()),
    }
}

/// A share of all.
fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "a share".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share from 0 to 1".to_owned()) }
}

fn frame_size(text: &str) -> Result<FrameSize, String> {
    match text {
        "imix" => Ok(FrameSize::Imix),
        bytes => {
            u16::from_str(bytes).map(FrameSize::Bytes).map_err(|_| "bytes, or imix".to_owned())
        }
    }
}

fn arrivals(text: &str) -> Result<Arrivals, String> {
    match text.split_once(':') {
        None if text == "constant" => Ok(Arrivals::Constant),
        None if text == "poisson" => Ok(Arrivals::Poisson),
        Some(("burst", count)) => match count.parse() {
            Ok(count @ 1..=4096) => Ok(Arrivals::Burst(count)),
            _ => Err("a burst has 1 to 4096 packets".to_owned()),
        },
        _ => Err("constant, poisson, or burst:COUNT".to_owned()),
    }
}

/// An Ethernet header and the devices' MTU.
const FRAME_BYTES_MAX: u16 = 9014;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_read_what_the_help_says() {
        assert_eq!(frame_size("imix"), Ok(FrameSize::Imix));
        assert_eq!(frame_size("1518"), Ok(FrameSize::Bytes(1518)));
        assert_eq!(arrivals("burst:64"), Ok(Arrivals::Burst(64)));
        assert_eq!(arrivals("poisson"), Ok(Arrivals::Poisson));
        assert_eq!("pcap:a:b".parse(), Ok(LoadSource::Pcap("a:b".into())));
        assert!(
            ["", "pcap", "pcap:", "xdp:1", "tcp"].iter().all(|t| t.parse::<LoadSource>().is_err())
        );
        for bad in ["", "burst", "burst:0", "burst:x", "even"] {
            assert!(arrivals(bad).is_err(), "{bad:?} was taken");
        }
        assert!(rate("0").is_err() && rate("nan").is_err() && rate("fast").is_err());
        assert_eq!(rate("1e6"), Ok(1e6));
        assert!(seconds("0").is_err() && seconds("inf").is_err() && seconds("-1").is_err());
        assert!(share("1.1").is_err() && share("nan").is_err() && share("-0.1").is_err());
        assert_eq!(share("0.25"), Ok(0.25));
        assert!(times("0").is_err() && times("1").is_ok());
        assert!(frame_size("70000").is_err() && frame_size("large").is_err());
    }
}
