//! Counters on their way to the next process, which goes on with them.
//!
//! Invariant: what both versions count arrives; what only one counts is 0, or passed over.

use std::collections::BTreeMap;

use fanq::Counts;
use serde::{Deserialize, Serialize};

/// One queue's counters by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Account {
    counters: BTreeMap<String, u64>,
    batch_sizes: Vec<u64>,
    hooks: Vec<u64>,
    verdict_errors_by_errno: Vec<(i32, u64)>,
}

impl From<&Counts> for Account {
    fn from(counts: &Counts) -> Self {
        Self {
            counters: counts.by_name().map(|(name, count)| (name.to_owned(), count)).collect(),
            batch_sizes: counts.batch_sizes.to_vec(),
            hooks: counts.hooks.to_vec(),
            verdict_errors_by_errno: counts.verdict_errors_by_errno.clone(),
        }
    }
}

impl From<&Account> for Counts {
    fn from(account: &Account) -> Self {
        let mut counts = Self::default();
        for (name, count) in &account.counters {
            if let Some(counter) = counts.by_name_mut(name) {
                *counter = within_reach(*count);
            }
        }
        for (class, count) in counts.batch_sizes.iter_mut().zip(&account.batch_sizes) {
            *class = within_reach(*count);
        }
        for (hook, count) in counts.hooks.iter_mut().zip(&account.hooks) {
            *hook = within_reach(*count);
        }
        let errors = account.verdict_errors_by_errno.iter().take(ERRNOS_MAX);
        counts.verdict_errors_by_errno =
            errors.map(|(errno, count)| (*errno, within_reach(*count))).collect();
        counts
    }
}

/// So that no sum over queues overflows, whatever the other process says.
fn within_reach(count: u64) -> u64 {
    count.min(1 << 52)
}

/// More than the kernel has.
const ERRNOS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_comes_back_whole_and_what_is_unknown_is_passed_over() {
        let counts = Counts {
            packets: 5,
            orphaned: 1,
            hooks: [1, 2, 3, 4, 5, 6],
            verdict_errors_by_errno: vec![(2, 9)],
            ..Counts::default()
        };
        let mut account = Account::from(&counts);
        assert_eq!(Counts::from(&account), counts);
        account.counters.insert("of the future".to_owned(), 7);
        account.hooks.push(8);
        assert_eq!(Counts::from(&account), counts);
        let sparse: Account = serde_json::from_str(r#"{"counters":{"packets":3}}"#).unwrap();
        assert_eq!(Counts::from(&sparse), Counts { packets: 3, ..Counts::default() });
    }

    #[test]
    fn sums_of_hostile_accounts_do_not_overflow() {
        let account: Account =
            serde_json::from_str(r#"{"counters":{"packets":18446744073709551615}}"#).unwrap();
        let mut sum = Counts::default();
        for _ in 0..1024 {
            sum += &Counts::from(&account);
        }
    }
}
