//! What a plan, an apply and a revert look like: shell that can be copied, with the reasons as comments; or JSON.
//!
//! Invariant: what is printed of a plan is a shell script that does what apply would do.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::apply::Applied;
use super::change::Change;
use super::journal::Journal;
use super::plan::Plan;
use super::revert::Reverted;

/// A plan as a script.
pub(super) fn text(plan: &Plan, journal: Option<&Journal>) {
    let mut text = script(plan);
    if let Some(line) = journal.and_then(pending) {
        text.extend(["# ", &line, "\n"]);
    }
    say(&text);
}

fn script(plan: &Plan) -> String {
    let mut text = match plan.changes.len() {
        0 => "# 0 changes: what this plan looks at is as it should be\n".to_owned(),
        count => format!(
            "# {}, none made; `fanq tune apply` makes them, `fanq tune revert` undoes that\n",
            changes(count)
        ),
    };
    let mut said = None;
    for change in &plan.changes {
        let Change { setting, old, new, reason, cost } = change;
        // Many CPUs and queues have the same reason.
        if said != Some((reason, cost)) {
            text.extend(["\n# why: ", reason, "\n# cost: ", cost, "\n"]);
            said = Some((reason, cost));
        }
        let (id, old, new) = (setting.id(), old.trim(), new.trim());
        text.extend([&change.command(), "  # ", &id, ", now ", old, ", then ", new, "\n"]);
    }
    if !plan.notes.is_empty() {
        text += "\n";
    }
    for note in &plan.notes {
        text.extend(["# note: ", note, "\n"]);
    }
    text
}

/// The same as one JSON object.
pub(super) fn json(plan: &Plan, journal: Option<&Journal>) -> anyhow::Result<()> {
    let mut object = plan_object(plan);
    object["to_revert"] = journal.map_or(0, |journal| journal.entries.len()).into();
    object["interrupted"] = journal.is_some_and(Journal::is_under_way).into();
    print(&object)
}

fn plan_object(plan: &Plan) -> Value {
    let change = |change: &Change| {
        json!({
            "id": change.setting.id(),
            "now": change.old.trim(),
            "new": change.new.trim(),
            "reason": change.reason,
            "cost": change.cost,
            "command": change.command(),
            "undo": change.undo(),
        })
    };
    json!({
        "count": plan.changes.len(),
        "changes": plan.changes.iter().map(change).collect::<Vec<_>>(),
        "notes": plan.notes,
    })
}

/// What an earlier apply has left to be put back.
fn pending(journal: &Journal) -> Option<String> {
    let count = journal.entries.len();
    if count == 0 {
        return None;
    }
    let of_before = if journal.is_under_way() {
        "an apply or a revert did not come to its end: `fanq tune revert` puts all back, `fanq tune apply` goes on"
    } else {
        "made by `fanq tune apply`; `fanq tune revert` puts them back"
    };
    Some(format!("{} in force, {of_before}", changes(count)))
}

pub(super) fn applied(plan: &Plan, applied: &Applied, journal: &Path) {
    for change in &plan.changes {
        println!("{}", change.command());
    }
    match applied.changed {
        0 => println!("0 changes: what this plan looks at is as it should be"),
        count => println!(
            "{} made; `fanq tune revert` undoes them (what was before is in {})",
            changes(count),
            journal.display()
        ),
    }
}

pub(super) fn applied_json(plan: &Plan, applied: &Applied) -> anyhow::Result<()> {
    let mut object = plan_object(plan);
    object["changed"] = applied.changed.into();
    object["rounded"] = applied.rounded.clone().into();
    print(&object)
}

pub(super) fn reverted(reverted: Option<&Reverted>, as_json: bool) -> anyhow::Result<()> {
    let nothing = Reverted::default();
    let Reverted { put_back, already, left, gone, reset, restarted } = reverted.unwrap_or(&nothing);
    if as_json {
        return print(&json!({
            "put_back": put_back,
            "already": already,
            "left": left,
            "gone": gone,
            "reset": reset,
            "restarted": restarted,
        }));
    }
    if reverted.is_none() {
        println!("nothing to put back: no change of `fanq tune apply` is in force");
        return Ok(());
    }
    if *restarted {
        println!("the machine was restarted since, which has undone most of it");
    }
    for line in gone {
        println!("forgotten: {line}");
    }
    for line in left {
        println!("left alone: {line}");
    }
    for device in reset {
        println!(
            "{device} has its former number of queues; what its interrupts, RPS and XPS were set to before the change \
             is not put back, as the change has reset it: look at `fanq tune plan`"
        );
    }
    println!("{} put back, {already} were as before", changes(*put_back));
    if !left.is_empty() {
        println!(
            "{} left alone stay in the journal: `fanq tune revert --force` puts them back, `--forget` forgets them",
            left.len()
        );
    }
    Ok(())
}

fn changes(count: usize) -> String {
    format!("{count} change{}", if count == 1 { "" } else { "s" })
}

fn print(object: &Value) -> anyhow::Result<()> {
    say(&(serde_json::to_string_pretty(object)? + "\n"));
    Ok(())
}

/// Whoever reads may have seen enough and gone.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::setting::Setting;

    /// Everything but commands is a comment, whatever a reason says.
    #[test]
    fn a_plan_is_a_script_with_its_reasons_as_comments() {
        let change = |cpu, reason: &str| Change {
            setting: Setting::Governor { cpu },
            old: "powersave\n".to_owned(),
            new: "performance".to_owned(),
            reason: reason.to_owned(),
            cost: "power",
        };
        let plan = Plan {
            changes: vec![change(0, "speed"), change(1, "speed"), change(2, "other")],
            notes: vec!["look".to_owned()],
        };
        let text = script(&plan);
        let commands: Vec<_> =
            text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        assert_eq!(commands.len(), 3);
        assert_eq!(
            commands[0],
            "echo performance > /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor  # governor.cpu0, now \
             powersave, then performance"
        );
        assert_eq!(text.matches("# why: speed\n").count(), 1);
        assert!(
            text.starts_with("# 3 changes, none made") && text.ends_with("# note: look\n"),
            "{text}"
        );
        assert!(script(&Plan::default()).starts_with("# 0 changes"));
    }
}
