//! x
#[derive(Debug, clap::Args)]
pub(crate) struct RulesArgs {}
pub(crate) fn run(_a: &RulesArgs) -> anyhow::Result<()> { Ok(()) }
