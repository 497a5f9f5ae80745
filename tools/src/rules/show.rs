//! `fanq rules show`: what is installed, with how many packets came to each rule.
//!
//! Invariant: it changes nothing, the counters included.

use clap::Args;

use super::PlaceArgs;
use super::installed::find;

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    place: PlaceArgs,
}

/// A rule and what it has counted; nothing, if it does not count.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CountedRule {
    pub(super) counted: Option<(u64, u64)>,
    pub(super) text: String,
}

pub(super) fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let (tables, chains) = find(&args.place)?;
    if tables.is_empty() && chains.is_empty() {
        eprintln!("nothing of fanq's is called {}", args.place.table);
    }
    for table in &tables {
        print_all(table, &table.counted()?);
    }
    for chain in &chains {
        print_all(chain, &chain.counted()?);
    }
    Ok(())
}

fn print_all(title: &dyn std::fmt::Display, rules: &[CountedRule]) {
    println!("{title}\n{:>12} {:>15}  rule", "packets", "bytes");
    for CountedRule { counted, text } in rules {
        match counted {
            Some((packets, bytes)) => println!("{packets:>12} {bytes:>15}  {text}"),
            None => println!("{:>12} {:>15}  {text}", "-", "-"),
        }
    }
}
