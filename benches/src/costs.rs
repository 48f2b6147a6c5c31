//! What policy, audit and tracing add to a call: all of them on, then each left out in turn.

use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;

use crate::load;
use crate::options::Pace;
use crate::stage::{Door, Duties, Level, Stage};
use crate::stats::{Sample, Spread, interleave};

const CONNECTIONS: usize = 64;

/// One way to run a worker.
#[derive(Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) what: &'static str,
    /// CPU of the server for one request, in microseconds.
    pub(crate) server_cpu_us: Spread,
    /// The same beside the worker that does everything; that one has none.
    pub(crate) beside_all: Option<Spread>,
}

/// Measures a worker with all duties, and with one left out each time.
///
/// # Errors
///
/// One wrong answer or one missing record makes all of it void.
pub(crate) fn measure(stage: &Stage, pace: Pace) -> Result<Vec<Cost>> {
    let (_collector, endpoint) = stage.collector()?;
    let all = Duties { collector: Some(&endpoint), ..Duties::default() };
    let variants = [
        ("policy, audit and tracing", "all", all),
        ("without tracing", "untraced", Duties { collector: None, ..all }),
        ("without policy", "unasked", Duties { policy: false, ..all }),
        ("records written to nowhere", "unwritten", Duties { audit: false, ..all }),
    ];
    let mut workers = Vec::new();
    let mut exchange = None;
    for (_, name, duties) in variants {
        let worker = stage.worker_with(name, Door::Mesh, Level::Warn, duties)?;
        let (own, _) = stage.first_answer(&worker.target)?;
        worker.settle(1, 0)?;
        exchange.get_or_insert(Arc::new(own));
        workers.push(worker);
    }
    let Some(exchange) = exchange else { return Ok(Vec::new()) };
    let rounds = interleave(workers.len(), pace.rounds, |index| {
        Ok(load::run(&workers[index], &exchange, CONNECTIONS, pace.run)?.sample)
    })?;
    let costs = variants.iter().zip(&rounds).enumerate().map(|(index, ((what, ..), own))| {
        let beside = (index > 0).then(|| Spread::ratio(own, &rounds[0], Sample::server_us));
        Ok(Cost {
            what,
            server_cpu_us: Spread::over(own, Sample::server_us)?,
            beside_all: beside.transpose()?,
        })
    });
    costs.collect()
}
