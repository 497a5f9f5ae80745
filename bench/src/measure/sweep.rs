//! A sweep: `fanq run` with every combination of some options' values, in turn.
//!
//! ```toml
//! batch = [8, 64]
//! copy-range = ["128", "full"]
//! gso = [false, true]
//! queues = [1, 2]
//! ```
//!
//! `queues` is how many queues there are, with a worker each; the load stays the same, so with fewer queues than CPUs
//! that make load, several CPUs fill one. All else is an option of `fanq run` by its name.
//!
//! Invariant: any option of `fanq run` can be an axis; combinations are targets like others, so all that is true of
//! targets is true of them. Their number is bounded.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use toml::{Table, Value};

use crate::target::Target;

/// Reads the file, and gives one target for each combination.
pub(crate) fn targets(path: &Path) -> anyhow::Result<Vec<Target>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
    let axes: Table = text.parse().with_context(|| format!("{shown} is no TOML"))?;
    combinations(&axes).with_context(|| format!("in {shown}"))
}

fn combinations(axes: &Table) -> anyhow::Result<Vec<Target>> {
    ensure!(!axes.is_empty(), "there is no axis; write one, such as: batch = [8, 64]");
    let mut all = vec![String::new()];
    let mut counts = vec![None];
    for (option, values) in axes {
        let Value::Array(values) = values else {
            bail!("{option} is no list of values; write {option} = [{values}]");
        };
        ensure!(!values.is_empty(), "{option} has no values");
        if option == "queues" {
            counts =
                values.iter().map(count).map(|count| count.map(Some)).collect::<Result<_, _>>()?;
        } else {
            let words =
                values.iter().map(|value| word(option, value)).collect::<Result<Vec<_>, _>>()?;
            let join = |rest: &String| {
                words.iter().map(|word| format!("{rest} {word}")).collect::<Vec<_>>()
            };
            all = all.iter().flat_map(join).collect();
        }
        ensure!(
            all.len() * counts.len() <= COMBINATIONS_MAX,
            "more than {COMBINATIONS_MAX} combinations; leave out some values"
        );
    }
    let mut targets = Vec::new();
    for options in &all {
        let words: Vec<_> = options.split_ascii_whitespace().collect();
        let spec =
            if words.is_empty() { "fanq".to_owned() } else { format!("fanq:{}", words.join(" ")) };
        let target: Target = spec.parse().map_err(anyhow::Error::msg)?;
        let with =
            |count: &Option<u16>| count.map_or(target.clone(), |count| target.on_queues(count));
        targets.extend(counts.iter().map(with));
    }
    Ok(targets)
}

/// Of queues.
fn count(value: &Value) -> anyhow::Result<u16> {
    let count = value.as_integer().and_then(|count| u16::try_from(count).ok());
    count
        .filter(|count| *count > 0)
        .with_context(|| format!("queues has the value {value}; give how many, such as 1 or 2"))
}

/// The option as it is typed; nothing for a switch that is off.
fn word(option: &str, value: &Value) -> anyhow::Result<String> {
    Ok(match value {
        Value::Boolean(true) => format!("--{option}"),
        Value::Boolean(false) => String::new(),
        Value::Integer(number) => format!("--{option} {number}"),
        Value::String(text) if !text.is_empty() && !text.contains(char::is_whitespace) => {
            format!("--{option} {text}")
        }
        _ => bail!("{option} has the value {value}; give numbers, words, true or false"),
    })
}

const COMBINATIONS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<String>, String> {
        let targets = combinations(&text.parse().unwrap()).map_err(|error| error.to_string())?;
        Ok(targets.into_iter().map(|target| target.name).collect())
    }

    #[test]
    fn every_combination_is_a_target() {
        let all = names("batch = [8, 64]\ngso = [false, true]\nwait = [\"block\"]").unwrap();
        assert_eq!(
            all,
            [
                "fanq:--batch 8 --wait block",
                "fanq:--batch 8 --gso --wait block",
                "fanq:--batch 64 --wait block",
                "fanq:--batch 64 --gso --wait block"
            ]
        );
    }

    #[test]
    fn the_number_of_queues_is_an_axis_like_others() {
        assert_eq!(
            names("queues = [1, 2]\nbatch = [8, 64]").unwrap(),
            [
                "fanq:--batch 8 on 1 queue",
                "fanq:--batch 8 on 2 queues",
                "fanq:--batch 64 on 1 queue",
                "fanq:--batch 64 on 2 queues"
            ]
        );
        assert_eq!(names("queues = [2]").unwrap(), ["fanq on 2 queues"]);
        for bad in ["0", "-1", "70000", "\"0-1\"", "true"] {
            let error = names(&format!("queues = [{bad}]")).unwrap_err();
            assert!(error.contains("queues has the value"), "{error}");
        }
    }

    #[test]
    fn what_is_no_axis_is_refused_with_its_name() {
        assert!(names("").unwrap_err().contains("no axis"));
        assert!(names("batch = 8").unwrap_err().contains("batch = [8]"));
        assert!(names("batch = []").unwrap_err().contains("batch has no values"));
        assert!(names("batch = [[1]]").unwrap_err().contains("batch has the value"));
        let many = "a = [1,2,3,4,5,6,7,8,9]\nb = [1,2,3,4,5,6,7,8,9]";
        assert!(names(many).unwrap_err().contains("combinations"));
    }
}
