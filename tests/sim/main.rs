//! Tests that drive the engine without sockets and with virtual time.
#![allow(clippy::unwrap_used)]

mod actors;
mod adversaries;
mod batches;
mod chunking;
mod client;
mod closing;
mod corpus;
mod doors;
mod faults;
mod heavy;
mod late;
mod lists;
mod model;
mod random;
mod rig;
mod scaling;
mod scripted_socket;
mod sessions;
mod standard;
mod taken_over;
mod transcripts;
mod wide;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::client::Carrier;
use crate::model::Fates;
use crate::world::{Tally, World};

/// Seeds in an ordinary run of the tests.
const SEEDS: u64 = 256;

/// Seeds over TLS and WebSocket, where a step costs more.
const LAYERED_SEEDS: u64 = 32;

/// Steps of a run.
const STEPS: u64 = 200;

#[test]
fn clients_over_tcp_see_what_the_model_expects() {
    let tally = simulate(SEEDS, &[Carrier::Tcp]);
    // The simulation has to reach these cases.
    assert!(tally.takeovers > 100 && tally.slow_consumers > 100, "{tally:?}");
    assert!(tally.publishers_paused > 10 && tally.timeouts > 100, "{tally:?}");
    assert!(tally.refused > 100 && tally.delivered > 10_000, "{tally:?}");
    let Fates { acknowledged, automatic, returned, dead, lost, followed } = tally.fates;
    assert!(acknowledged > 500 && automatic > 500 && returned > 500 && dead > 10, "{tally:?}");
    assert!(followed > 100, "{tally:?}");
    // Only messages without an acknowledgement can be lost.
    assert!(lost < automatic / 10, "{tally:?}");
}

#[test]
fn clients_over_every_transport_see_what_the_model_expects() {
    let tally = simulate(LAYERED_SEEDS, &Carrier::ALL);
    assert!(tally.takeovers > 10 && tally.delivered > 500, "{tally:?}");
}

/// Runs the given number of seeds, or the one in `SIM_SEED`. `SIM_SEEDS` and `SIM_STEPS` set the number
/// of seeds and of steps.
fn simulate(seeds: u64, carriers: &'static [Carrier]) -> Tally {
    let steps = variable("SIM_STEPS");
    let seeds = match (variable("SIM_SEED"), variable("SIM_SEEDS")) {
        (Some(seed), _) => {
            run(seed, steps.unwrap_or(STEPS), carriers, true);
            return Tally::plenty();
        }
        (None, wider) => wider.unwrap_or(seeds),
    };
    let next = AtomicU64::new(0);
    let run_all = || {
        let mut sum = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return sum;
            }
            sum.add(run(seed, steps.unwrap_or(STEPS), carriers, false));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run_all)).collect();
        let mut sum = Tally::default();
        threads.into_iter().for_each(|thread| sum.add(thread.join().expect("a seed that fails")));
        sum
    })
}

fn run(seed: u64, steps: u64, carriers: &'static [Carrier], is_verbose: bool) -> Tally {
    let mut step = 0;
    let run = std::panic::AssertUnwindSafe(|| {
        let mut world = World::new(seed, carriers, is_verbose);
        while step < steps {
            world.step();
            step += 1;
        }
        world.finish()
    });
    match std::panic::catch_unwind(run) {
        Ok(tally) => tally,
        Err(panic) => {
            eprintln!("SIM_SEED={seed:#x} fails at step {step} of {steps}");
            std::panic::resume_unwind(panic)
        }
    }
}

/// A number in the environment, decimal or hexadecimal.
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|_| panic!("{name} is not a number")))
}
