//! Where others may ask about a running program: the control socket and the metrics.
//!
//! Invariant: places are taken before there is anything to see, so that what can be refused about them is refused
//! before a queue is bound or a program started. It deliberately knows nothing of what is shown there: that is the
//! view's, of a run (`run::view`) or of an accelerated program (`accel::view`).

use std::time::Instant;

use serde_json::{Value, json};

use crate::control::{ControlPlace, Controlled, OpenControl, ServedControl};
use crate::endpoint::Endpoint;
use crate::metrics::{MetricsAddress, OpenMetrics, Scraped};

/// The places, taken, while nobody answers there yet.
pub(crate) struct Doors {
    control: Option<OpenControl>,
    metrics: Option<OpenMetrics>,
}

/// Served until dropped.
pub(crate) struct Serving {
    control: Option<ServedControl>,
    _metrics: Option<Endpoint>,
}

impl Doors {
    /// Takes the places. Those that are `shared` may be taken by the process that comes next as well, and may be had by
    /// the one before: its control socket stays where it is until [`Serving::take_places`].
    ///
    /// # Errors
    /// The port, or the path of the socket, cannot be had.
    pub(crate) fn open(
        control: &ControlPlace,
        metrics: Option<MetricsAddress>,
        shared: bool,
    ) -> anyhow::Result<Self> {
        let metrics = metrics.map(|address| OpenMetrics::open(address, shared)).transpose()?;
        Ok(Self { control: OpenControl::open(control, shared)?, metrics })
    }

    /// Answers there from now on.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub(crate) fn serve<V>(self, view: &V) -> anyhow::Result<Serving>
    where
        V: Controlled + Scraped + Clone,
    {
        let metrics = self.metrics.map(|metrics| metrics.serve(view.clone())).transpose()?;
        let control = self.control.map(|control| control.serve(view.clone())).transpose()?;
        Ok(Serving { control, _metrics: metrics })
    }
}

impl Serving {
    /// The process before serves no more: its places are ours.
    pub(crate) fn take_places(&mut self) {
        if let Some(control) = &mut self.control {
            control.take_place();
        }
    }
}

/// The answer to `statistics`: the account, who answers, and what is known `beside`.
pub(crate) fn statistics(
    mut account: Value,
    began: Instant,
    settings: &Value,
    beside: Value,
) -> Value {
    let uptime = began.elapsed();
    let head = json!({
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        "settings": settings,
    });
    if let Value::Object(account) = &mut account {
        for more in [head, beside] {
            if let Value::Object(more) = more {
                account.extend(more);
            }
        }
    }
    account
}
