//! Reads `nft -j list ruleset` (libnftables-json(5)).
//!
//! Invariant: what is not understood is left out, never an error, except where the whole is no JSON.

use std::collections::HashMap;

use serde_json::Value;

use super::{Backend, Chains, QueueRule};

/// A table's family and name.
type Table = (String, String);

/// The queue rules of a ruleset.
pub(super) fn queue_rules(json: &str) -> Result<Vec<QueueRule>, String> {
    // Warnings may follow on the other output.
    let mut stream = serde_json::Deserializer::from_str(json).into_iter::<Value>();
    let ruleset = match stream.next() {
        None => return Ok(Vec::new()),
        Some(ruleset) => ruleset.map_err(|error| format!("its output is no JSON: {error}"))?,
    };
    let objects = ruleset["nftables"].as_array().map_or(&[][..], Vec::as_slice);
    let mut tables: HashMap<Table, Chains> = HashMap::new();
    for object in objects {
        note_chains(&mut tables, object);
    }
    let rules = objects.iter().filter_map(|object| object.get("rule"));
    Ok(rules.filter_map(|rule| queue_rule(&tables, rule)).collect())
}

fn note_chains(tables: &mut HashMap<Table, Chains>, object: &Value) {
    if let Some(chain) = object.get("chain") {
        let chains = tables.entry(table_of(chain)).or_default();
        if let Some(hook) = chain["hook"].as_str() {
            chains.hooks.insert(text(&chain["name"]), hook.to_owned());
        }
    } else if let Some(rule) = object.get("rule") {
        let chains = tables.entry(table_of(rule)).or_default();
        let mut targets = Vec::new();
        collect_targets(&rule["expr"], &mut targets);
        let from = text(&rule["chain"]);
        chains.jumps.extend(targets.into_iter().map(|to| (from.clone(), to)));
    } else if let Some(map) = object.get("map") {
        // Which rule looks into a named map is not followed: any chain that has a hook may.
        let table = (text(&map["family"]), text(&map["table"]));
        let chains = tables.entry(table).or_default();
        let mut targets = Vec::new();
        collect_targets(&map["elem"], &mut targets);
        for to in targets {
            let from = chains.hooks.keys().cloned().collect::<Vec<_>>();
            chains.jumps.extend(from.into_iter().map(|from| (from, to.clone())));
        }
    }
}

/// The chains that `jump` and `goto` name, however deep they stand (verdict maps).
fn collect_targets(value: &Value, targets: &mut Vec<String>) {
    match value {
        Value::Array(parts) => parts.iter().for_each(|part| collect_targets(part, targets)),
        Value::Object(fields) => {
            for (name, part) in fields {
                match part["target"].as_str() {
                    Some(target) if name == "jump" || name == "goto" => {
                        targets.push(target.to_owned());
                    }
                    _ => collect_targets(part, targets),
                }
            }
        }
        _ => {}
    }
}

fn queue_rule(tables: &HashMap<Table, Chains>, rule: &Value) -> Option<QueueRule> {
    let expressions = rule["expr"].as_array()?;
    let field = |name: &str| expressions.iter().find_map(|expression| expression.get(name));
    let of_iptables = expressions.iter().any(|expression| {
        let xt = &expression["xt"];
        xt["type"] == "target" && xt["name"] == "NFQUEUE"
    });
    let queue = field("queue");
    if queue.is_none() && !of_iptables {
        return None;
    }
    let flags: Vec<&str> = match queue.map(|queue| &queue["flags"]) {
        Some(Value::String(flag)) => vec![flag],
        Some(Value::Array(flags)) => flags.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let queues = match queue {
        // `queue` without a number is queue 0.
        Some(queue) => numbers(queue.get("num")),
        None => None,
    };
    let (table, chain) = (table_of(rule), text(&rule["chain"]));
    Some(QueueRule {
        by: Backend::Nft,
        hooks: tables.get(&table).map(|chains| chains.hooks_of(&chain)).unwrap_or_default(),
        fanout: flags.contains(&"fanout"),
        bypass: flags.contains(&"bypass"),
        packets: field("counter").and_then(|counter| counter["packets"].as_u64()),
        statement: statement(&flags, queues),
        of_fanq: rule["comment"] == "fanq",
        family: table.0,
        table: table.1,
        chain,
        queues,
    })
}

fn numbers(num: Option<&Value>) -> Option<(u16, u16)> {
    let number = |value: &Value| u16::try_from(value.as_u64()?).ok();
    match num {
        None => Some((0, 0)),
        Some(Value::Number(_)) => num.and_then(number).map(|queue| (queue, queue)),
        Some(num) => match num["range"].as_array()?.as_slice() {
            [first, last] => Some((number(first)?, number(last)?)),
            _ => None,
        },
    }
}

fn statement(flags: &[&str], queues: Option<(u16, u16)>) -> String {
    let flags =
        if flags.is_empty() { String::new() } else { format!(" flags {}", flags.join(",")) };
    match queues {
        Some((first, last)) if first == last => format!("queue{flags} to {first}"),
        Some((first, last)) => format!("queue{flags} to {first}-{last}"),
        None => format!("queue{flags} to an expression"),
    }
}

fn table_of(value: &Value) -> Table {
    (text(&value["family"]), text(&value["table"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_rule(statement: &str) -> Vec<QueueRule> {
        let json = format!(
            r#"{{"nftables": [
            {{"metainfo": {{"version": "1.0.6"}}}},
            {{"chain": {{"family": "inet", "table": "ips", "name": "way", "hook": "forward"}}}},
            {{"chain": {{"family": "inet", "table": "ips", "name": "deep"}}}},
            {{"rule": {{"family": "inet", "table": "ips", "chain": "way", "expr": [
                {{"vmap": {{"key": {{"meta": {{"key": "iifname"}}}},
                            "data": {{"set": [["eth0", {{"goto": {{"target": "deep"}}}}]]}}}}}}]}}}},
            {{"rule": {{"family": "inet", "table": "ips", "chain": "deep", "comment": "fanq", "expr": [
                {{"counter": {{"packets": 5, "bytes": 300}}}}, {{"queue": {statement}}}]}}}}
            ]}}"#
        );
        queue_rules(&json).unwrap()
    }

    #[test]
    fn the_forms_of_the_statement_are_read() {
        for (statement, queues, fanout, bypass, words) in [
            ("null", Some((0, 0)), false, false, "queue to 0"),
            (r#"{"num": 3}"#, Some((3, 3)), false, false, "queue to 3"),
            (r#"{"num": {"range": [2, 5]}}"#, Some((2, 5)), false, false, "queue to 2-5"),
            (
                r#"{"num": {"range": [0, 3]}, "flags": ["bypass", "fanout"]}"#,
                Some((0, 3)),
                true,
                true,
                "queue flags bypass,fanout to 0-3",
            ),
            (
                r#"{"num": {"symhash": {"mod": 4}}, "flags": "bypass"}"#,
                None,
                false,
                true,
                "queue flags bypass to an expression",
            ),
        ] {
            let found = one_rule(statement);
            let [rule] = found.as_slice() else { panic!("{statement}: {found:?}") };
            let read = (rule.queues, rule.fanout, rule.bypass, rule.statement.as_str());
            assert_eq!(read, (queues, fanout, bypass, words), "{statement}");
            assert_eq!((rule.packets, rule.of_fanq), (Some(5), true));
        }
    }

    #[test]
    fn the_hook_is_found_through_other_chains() {
        assert_eq!(one_rule("null")[0].hooks, ["forward"]);
    }

    #[test]
    fn what_is_no_ruleset_is_an_error_or_empty() {
        assert!(queue_rules("no").unwrap_err().contains("no JSON"));
        for text in ["", "{}", r#"{"nftables": [{"rule": {}}, 3, null]}"#] {
            assert_eq!(queue_rules(text), Ok(Vec::new()), "{text}");
        }
    }
}
