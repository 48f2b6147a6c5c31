//! Each case in small, as part of every test run. `cargo xtask torture` is the whole of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::path::Path;

use convoke_torture::args::Amounts;
use convoke_torture::cases::{cuts, damage, disk_full, kills, races, sends};
use convoke_torture::report::Report;

const VICTIM: &str = env!("CARGO_BIN_EXE_convoke-torture-victim");

/// The seed of every test run. Other seeds are for `cargo xtask torture`.
const SEED: u64 = 20_260_401;

fn check(case: impl AsyncFnOnce(&Path, Amounts) -> anyhow::Result<Report>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let report = runtime.block_on(case(Path::new(VICTIM), Amounts::small())).unwrap();
    if let Some(why) = &report.skipped {
        println!("skipped: {}: {why}", report.case);
    }
    assert!(report.violations.is_empty(), "{}\n{}{:?}", report.runs, report.told(), report.kept);
    println!("{} in {:?}: {}", report.case, report.took, report.runs);
}

#[test]
fn r_01_an_agent_that_is_killed_loses_nothing() {
    check(async |victim, amounts| kills::run(victim, &amounts.kills, SEED, |_| {}).await);
}

#[test]
fn r_06_damage_is_refused_or_harmless() {
    check(async |victim, amounts| damage::run(victim, &amounts.damage, SEED, |_| {}).await);
}

#[test]
fn r_07_a_full_disk_refuses_changes_until_there_is_room() {
    check(async |victim, amounts| disk_full::run(victim, &amounts.disk_full, SEED, |_| {}).await);
}

#[test]
fn r_16_a_stream_that_is_cut_tells_what_an_uncut_one_does() {
    check(async |victim, amounts| cuts::run(victim, &amounts.cuts, SEED, |_| {}).await);
}

#[test]
fn r_18_a_message_that_is_sent_often_is_one_task() {
    check(async |victim, amounts| sends::run(victim, &amounts.sends, SEED, |_| {}).await);
}

#[test]
fn r_19_a_cancellation_and_a_completion_have_one_winner() {
    check(async |victim, amounts| races::run(victim, &amounts.races, SEED, |_| {}).await);
}
