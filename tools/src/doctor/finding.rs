//! What doctor says about one thing: a status, what is, why it matters, what was seen and what mends it.
//!
//! Invariant: each finding has the id of a [`Topic`], which never changes its meaning; a warning and a failure come
//! with what to do about it.

use serde::Serialize;

/// How it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    /// It could not be looked at.
    Unseen,
    Warn,
    Fail,
}

impl Status {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Unseen => "UNSEEN",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Topic {
    /// For scripts: it stays.
    pub(super) id: &'static str,
    /// Why it matters, in one line.
    pub(super) why: &'static str,
}

impl Topic {
    pub(super) fn ok(&self, title: impl Into<String>) -> Finding {
        self.finding(Status::Ok, title.into())
    }

    pub(super) fn warn(&self, title: impl Into<String>) -> Finding {
        self.finding(Status::Warn, title.into())
    }

    pub(super) fn fail(&self, title: impl Into<String>) -> Finding {
        self.finding(Status::Fail, title.into())
    }

    pub(super) fn unseen(&self, title: impl Into<String>) -> Finding {
        self.finding(Status::Unseen, title.into())
    }

    fn finding(&self, status: Status, title: String) -> Finding {
        let (id, why) = (self.id, self.why);
        Finding { id, subject: None, status, title, why, evidence: vec![], mend: vec![] }
    }
}

/// What was found about a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) id: &'static str,
    /// The device, where there is one finding for each.
    pub(super) subject: Option<String>,
    pub(super) status: Status,
    /// What is, in one line.
    pub(super) title: String,
    pub(super) why: &'static str,
    /// What was seen, a line each.
    pub(super) evidence: Vec<String>,
    /// Commands that mend it, a line each. One that begins with `#` says what no command can do.
    pub(super) mend: Vec<String>,
}

impl Finding {
    pub(super) fn of(mut self, subject: &str) -> Self {
        self.subject = Some(subject.to_owned());
        self
    }

    /// The same, as a failure.
    pub(super) fn into_fail(mut self) -> Self {
        self.status = Status::Fail;
        self
    }

    pub(super) fn seen(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }

    pub(super) fn seen_all(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(evidence);
        self
    }

    pub(super) fn mend(mut self, command: impl Into<String>) -> Self {
        self.mend.push(command.into());
        self
    }

    pub(super) fn mend_all(mut self, commands: impl IntoIterator<Item = String>) -> Self {
        self.mend.extend(commands);
        self
    }
}

/// What belongs together on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Group {
    Kernel,
    Privileges,
    Queues,
    Cpus,
    Devices,
    Counters,
}

impl Group {
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Privileges => "privileges and buffers",
            Self::Queues => "rules and queues",
            Self::Cpus => "CPUs",
            Self::Devices => "devices",
            Self::Counters => "counters, looked at twice",
        }
    }
}
