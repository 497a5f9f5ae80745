//! What is asked and what is answered: one line of JSON each.
//!
//! Invariant: a request of another version is refused with the version that is spoken here, never guessed at.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The version of the protocol. What is added to an answer does not change it.
pub(crate) const VERSION: u32 = 1;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// The account so far, as `fanq run --summary json` prints it at the end, and what the program is.
    Statistics,
    /// The settings in force.
    Get,
    /// Another value for one that may change.
    Set { key: String, value: String },
    /// What SIGHUP does: rules read again, log opened anew.
    Reload,
}

impl Request {
    /// Its line.
    pub(crate) fn line(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value["version"] = VERSION.into();
        format!("{value}\n")
    }

    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it, for the answer.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        let value: Value =
            serde_json::from_slice(line).map_err(|error| format!("this is no JSON: {error}"))?;
        match value.get("version").and_then(Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                return Err(format!("version {version} is not spoken here, but {VERSION}"));
            }
            None => return Err(format!("a request has \"version\": {VERSION}")),
        }
        serde_json::from_value(value).map_err(|error| {
            format!("{error}; requests are statistics, get, set (with key and value) and reload")
        })
    }
}

/// An answer's line.
pub(crate) fn answer(outcome: Result<Value, String>) -> Vec<u8> {
    let value = match outcome {
        Ok(value) => json!({ "version": VERSION, "ok": value }),
        Err(words) => json!({ "version": VERSION, "error": words }),
    };
    format!("{value}\n").into_bytes()
}

/// Reads an answer's line: what was asked for, or why not.
///
/// # Errors
/// It is no answer.
pub(crate) fn parse_answer(line: &[u8]) -> Result<Result<Value, String>, String> {
    let mut value: Value =
        serde_json::from_slice(line).map_err(|error| format!("the answer is no JSON: {error}"))?;
    if let Some(words) = value.get("error").and_then(Value::as_str) {
        return Ok(Err(words.to_owned()));
    }
    match value.get_mut("ok") {
        Some(answer) => Ok(Ok(answer.take())),
        None => Err("the answer has neither `ok` nor `error`".to_owned()),
    }
}
