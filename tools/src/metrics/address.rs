//! Where metrics are served: `127.0.0.1:9477` in several notations.
//!
//! Invariant: what names no address is loopback's alone: nobody else on the network reads a firewall's numbers
//! unless that was asked for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// What `--metrics` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MetricsAddress(pub(super) SocketAddr);

impl FromStr for MetricsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = || text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if let Ok(address) = text.parse::<SocketAddr>() {
            Ok(Self(address))
        } else if let Ok(port) = text.parse::<u16>() {
            Ok(Self(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)))
        } else if let Ok(address) = bare() {
            Ok(Self(SocketAddr::new(address, PORT)))
        } else {
            Err(format!(
                "`{text}` is no place to serve metrics: write 127.0.0.1:{PORT}, [::1]:{PORT}, an address, or a port"
            ))
        }
    }
}

impl MetricsAddress {
    /// What to type when the port cannot be had.
    pub(super) fn remedy(self) -> String {
        let (address, port) = (self.0, self.0.port());
        let other = SocketAddr::new(address.ip(), port.checked_add(1).unwrap_or(PORT));
        format!(
            "--metrics {address} cannot be had; see who has it: ss -ltnp 'sport = :{port}'; or name another: \
             --metrics {other}"
        )
    }
}

/// Ours by choice; nothing of the kernel or of fanq depends on it.
const PORT: u16 = 9477;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_a_port_and_both_are_understood() {
        for (text, means) in [
            ("127.0.0.1:9477", "127.0.0.1:9477"),
            ("9500", "127.0.0.1:9500"),
            ("10.0.0.1", "10.0.0.1:9477"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:9478", "[::1]:9478"),
            ("[::1]", "[::1]:9477"),
            ("::1", "[::1]:9477"),
        ] {
            assert_eq!(text.parse().map(|MetricsAddress(it)| it.to_string()), Ok(means.to_owned()));
        }
        for text in ["", "localhost", "65536", "127.0.0.1:", ":9477", "-1"] {
            let refused = text.parse::<MetricsAddress>().unwrap_err();
            assert!(refused.contains("127.0.0.1:9477"), "{refused}");
        }
    }
}
