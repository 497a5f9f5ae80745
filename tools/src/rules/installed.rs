//! What earlier installs have left, whichever backend made it.
//!
//! Invariant: a backend that cannot be asked is never taken for one that has nothing installed, unless the other one
//! answers; then it is said. It changes nothing.

use anyhow::{Context, bail};

use super::backend::Backend;
use super::command::Refusal;
use super::{PlaceArgs, iptables, nft};

/// What is installed, by the backends asked for. With `auto` a backend may be missing, but not
/// both.
pub(super) fn find(
    place: &PlaceArgs,
) -> anyhow::Result<(Vec<nft::NftTable>, Vec<iptables::Chain>)> {
    let by_nft = || nft::find(&place.table);
    let by_iptables = || iptables::find(&place.table);
    match place.backend {
        Backend::Nft => Ok((by_nft().context("looking for nft tables")?, Vec::new())),
        Backend::Iptables => {
            Ok((Vec::new(), by_iptables().context("looking for iptables chains")?))
        }
        Backend::Auto => match (by_nft(), by_iptables()) {
            (Err(nft), Err(iptables)) => bail!(
                "neither nft nor iptables tells what is installed, nothing is done. It takes \
                 one of them (apt-get install nftables) and CAP_NET_ADMIN (run this as root)\n  \
                 nft: {nft:#}\n  iptables: {iptables:#}"
            ),
            (tables, chains) => {
                Ok((none_if_refused("nft", tables)?, none_if_refused("iptables", chains)?))
            }
        },
    }
}

/// With the other backend at hand, one that cannot be asked is no failure. One that does not exist
/// here has installed nothing; any other is worth a line.
fn none_if_refused<T>(backend: &str, found: anyhow::Result<Vec<T>>) -> anyhow::Result<Vec<T>> {
    let Err(error) = found else { return found };
    let Some(refusal) = error.downcast_ref::<Refusal>() else { return Err(error) };
    if !refusal.is_missing() {
        eprintln!("note: what {backend} may have installed was not looked for: {refusal}");
    }
    Ok(Vec::new())
}
