//! The documentation, executed: each page is played from its top to its end, and what its tables
//! say is compared with what the binary does.
//!
//! `UPDATE_DOCS=1` writes the help texts and the picture instead of comparing them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is a test")]

mod cli;
mod configuration;
mod conformance;
mod http;
mod init;
mod page;
mod picture;
mod play;
mod records;
mod world;

#[test]
fn the_readme_can_be_followed() {
    let mut world = play::play("README.md");
    let metrics = http::get(world.port("9090"), "/metrics");
    let screens = world.close();
    records::check_metrics(&metrics.body);
    records::check_logs(&screens);
    records::check_audit(&world.state());
}

#[test]
fn the_other_pages_are_as_they_say() {
    for page in page::pages().iter().filter(|page| *page != "README.md") {
        play::play(page);
    }
}

/// The numbers and names of the exit codes are the program's, on both pages that have them.
#[test]
fn exit_codes_are_those_of_the_help() {
    let help = play::help(&[]);
    let (_, codes) = help.split_once("Exit codes:").unwrap();
    let codes = codes.split_whitespace().collect::<Vec<_>>().join(" ");
    for page in ["README.md", "docs/reference/cli.md"] {
        let rows = page::Page::read(page).table("Exit codes");
        let listed: Vec<_> = rows.iter().map(|row| format!("{} {}", row[0], row[1])).collect();
        assert_eq!(listed.join(" "), codes, "{page}");
    }
}
