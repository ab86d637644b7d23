//! What a connection costs the server: CPU of all its processes, the kernel's part included.
//!
//! Instances take turns after a few connections, so that what else the machine does meets all of them.

use crate::client::{Client, Tls};
use crate::instance::Instance;
use crate::machine::{go_on, Result};
use crate::share::Errors;
use crate::support::measure::Samples;

/// Microseconds per connection, of one instance.
#[derive(Default)]
pub struct Cost {
    pub full: Samples,
    /// Empty when the instance does not resume every time.
    pub resumed: Samples,
    partly: bool,
}

impl Cost {
    pub fn full(&self) -> Option<f64> {
        (!self.full.0.is_empty()).then(|| typical(&self.full))
    }

    pub fn resumed(&self) -> Option<f64> {
        (!self.partly && !self.resumed.0.is_empty()).then(|| typical(&self.resumed))
    }
}

/// The lower quartile: whatever shares the machine can only add, by emptying the processor's caches.
pub fn typical(samples: &Samples) -> f64 {
    samples.percentile(25.0)
}

/// How much to measure.
#[derive(Clone, Copy)]
pub struct Effort {
    pub turns: usize,
    /// Connections in a block.
    pub block: usize,
}

/// Full and resumed connections of each instance, in turns. The first turn warms up and is not counted.
pub fn measure(instances: &[&Instance], tls: Tls, effort: Effort, errors: &mut Errors) -> Result<Vec<Cost>> {
    let client = Client::new(tls)?;
    instances.iter().for_each(|instance| instance.spread());
    let mut costs: Vec<Cost> = instances.iter().map(|_| Cost::default()).collect();
    for turn in 0..=effort.turns {
        for (instance, cost) in instances.iter().zip(&mut costs) {
            let full = block(instance, &client, effort.block, false, errors)?;
            let resumed = block(instance, &client, effort.block, true, errors)?;
            if turn > 0 {
                cost.full.0.extend(full);
                cost.partly |= resumed.is_none();
                cost.resumed.0.extend(resumed);
            }
        }
    }
    Ok(costs)
}

/// Microseconds per connection in a block of them; `None` when one of them was not what it should be.
pub fn block(
    instance: &Instance,
    client: &Client,
    connections: usize,
    resumes: bool,
    errors: &mut Errors,
) -> Result<Option<f64>> {
    let port = instance.site.port;
    let mut session = match resumes {
        true => errors.keep(client.visit(port, None)).and_then(|visit| visit.session),
        false => None,
    };
    let mut as_expected = !resumes || session.is_some();
    let before = instance.cpu();
    for _ in 0..connections {
        go_on()?;
        let Some(visit) = errors.keep(client.visit(port, session.as_ref())) else {
            as_expected = false;
            continue;
        };
        as_expected &= visit.resumed == resumes;
        if resumes {
            session = visit.session;
        }
    }
    Ok(as_expected.then(|| (instance.cpu() - before) / connections as f64))
}
