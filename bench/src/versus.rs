//! x
#[derive(Debug, clap::Args)]
pub(crate) struct VersusArgs {}
pub(crate) fn run(_a: &VersusArgs) -> anyhow::Result<()> { Ok(()) }
