//! A node that runs the real decisions over a journal that forgets, with handlers that do anything,
//! clients that repeat themselves, and a crash at every boundary between a decision and its effects.
//!
//! What is under way waits in one bag, and chance says what comes next: so everything is delayed and
//! reordered against everything else. A failure names its seed.

mod handler;
mod journal;
mod node;
mod script;

use std::collections::BTreeSet;

use node::{Crash, World};

/// How many worlds crash at random.
const SEEDS: u64 = 2_500;

/// How many worlds crash once at each boundary that they have.
const EXHAUSTED: u64 = 40;

/// Runs the world of `seed` to its end, and gives how many boundaries it came to. It crashes at these
/// boundaries, or now and then if there are none.
fn run(seed: u64, crashes: Option<&BTreeSet<usize>>) -> usize {
    let mut world = World::new(seed, crashes);
    world.begin();
    while let Some(happening) = world.next() {
        if world.happen(happening) == Err(Crash) {
            world.crash();
        }
    }
    world.check_end();
    world.boundaries()
}

/// The seed of `SIMULATION_SEED`, or all below `end`.
fn seeds(end: u64) -> Vec<u64> {
    let one = std::env::var("SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok());
    one.map_or_else(|| (0..end).collect(), |seed| vec![seed])
}

#[test]
fn every_world_keeps_the_contract_whenever_it_crashes() {
    let boundaries: usize = seeds(SEEDS).into_iter().map(|seed| run(seed, None)).sum();
    assert!(boundaries > 0);
}

#[test]
fn a_world_may_crash_at_any_boundary() {
    for seed in seeds(EXHAUSTED) {
        let boundaries = run(seed, Some(&BTreeSet::new()));
        for at in 0..boundaries {
            // And once more, while it is being recovered.
            run(seed, Some(&BTreeSet::from([at, at + 1 + seed as usize % 5])));
        }
    }
}
