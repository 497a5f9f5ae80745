//! What a target says of itself when it ends.
//!
//! Invariant: the last line that it prints is a JSON object, or it says nothing: programs of others need not know us.

use serde::Deserialize;
use serde_json::Value;

/// Counts of all its queues since it was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct OwnAccount {
    /// Packets it answered.
    pub(crate) packets: u64,
    /// Of those, the ones it dropped; peers accept everything.
    #[serde(default)]
    pub(crate) dropped: u64,
    /// Packets that it answered unseen, since there were too many.
    #[serde(default)]
    pub(crate) shed: u64,
    pub(crate) recv_calls: u64,
    pub(crate) send_calls: u64,
}

/// Reads the last line: the counts themselves, or an object that holds them as `totals`, as `fanq run` does.
pub(crate) fn read(stdout: &str) -> Option<OwnAccount> {
    let mut said: Value = serde_json::from_str(stdout.lines().next_back()?).ok()?;
    let counts = said.get_mut("totals").map(Value::take).unwrap_or(said);
    serde_json::from_value(counts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_account() {
        let own = OwnAccount { packets: 9, dropped: 0, shed: 0, recv_calls: 3, send_calls: 2 };
        let peer = "warming up\n{\"packets\":9,\"recv_calls\":3,\"send_calls\":2,\"cpu_us\":5}\n";
        assert_eq!(read(peer), Some(own));
        let fanq = r#"{"schema":"fanq.run/1",
            "totals":{"packets":9,"dropped":4,"shed":5,"recv_calls":3,"send_calls":2}}"#
            .replace('\n', "");
        assert_eq!(read(&fanq), Some(OwnAccount { dropped: 4, shed: 5, ..own }));
        for other in ["", "bye", "{}", "[1]", "{\"packets\":-1}"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
