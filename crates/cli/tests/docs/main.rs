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
    // The worker's, and those of the orchestrator, which calls.
    let metrics = ["9090", "9091"].map(|port| http::get(world.port(port), "/metrics").body);
    let screens = world.close();
    records::check_metrics(&metrics.concat());
    records::check_logs(&screens);
    records::check_audit(&world.state());
}

#[test]
fn the_other_pages_are_as_they_say() {
    let of_its_own = |page: &str| page == "README.md" || page.starts_with(page::GUIDES);
    for page in page::pages().iter().filter(|page| !of_its_own(page)) {
        play::play(page);
    }
}

/// A test for each guide, so that they are played beside each other and one can be played alone.
macro_rules! guides {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                play::play(concat!("docs/guides/", $name));
            }
        )*

        #[test]
        fn every_guide_is_played() {
            let pages = page::pages();
            let guides = pages.iter().filter(|page| page.starts_with(page::GUIDES));
            let played = [$(concat!("docs/guides/", $name)),*];
            assert_eq!(guides.collect::<Vec<_>>(), played);
        }
    };
}

guides! {
    the_guide_to_durable_tasks_can_be_followed: "durable-tasks.md",
    the_guide_to_errors_can_be_followed: "error-handling.md",
    the_guide_to_a_first_agent_can_be_followed: "first-agent.md",
    the_guide_to_identity_can_be_followed: "identity-spire.md",
    the_guide_to_observability_can_be_followed: "observability.md",
    the_guide_to_policies_can_be_followed: "policies.md",
    the_guide_to_production_can_be_followed: "production.md",
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
