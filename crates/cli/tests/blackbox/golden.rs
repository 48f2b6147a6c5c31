//! The help of every command, word for word: it is the first documentation that anybody reads.

use std::path::Path;

use crate::world::World;

const COMMANDS: [&str; 47] = [
    "",
    "demo",
    "serve",
    "call",
    "task",
    "task send",
    "task stream",
    "task get",
    "task list",
    "task cancel",
    "task subscribe",
    "task input",
    "card",
    "card show",
    "health",
    "ping",
    "doctor",
    "validate",
    "config",
    "config show",
    "config schema",
    "config migrate",
    "init",
    "identity",
    "identity serve",
    "identity show",
    "identity entry",
    "identity entry add",
    "identity entry list",
    "identity entry rm",
    "policy",
    "policy check",
    "policy lint",
    "policy explain",
    "policy test",
    "authz",
    "authz check",
    "logs",
    "data",
    "data check",
    "data backup",
    "data restore",
    "data vacuum",
    "data query",
    "data stats",
    "completions",
    "man",
];

/// Commands that only hold others, which have the examples.
const GROUPS: [&str; 9] =
    ["", "task", "card", "config", "identity", "identity entry", "policy", "authz", "data"];

#[test]
fn help_is_as_recorded_and_has_examples() {
    let world = World::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/blackbox/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut different = Vec::new();
    for command in COMMANDS {
        let mut args: Vec<&str> = command.split_whitespace().collect();
        args.push("--help");
        let done = world.run(&args);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{command}");
        let example = format!("Example:\n  convoke {command}");
        assert!(GROUPS.contains(&command) || done.stdout.contains(&example), "{}", done.stdout);

        let file = golden.join(format!(
            "{}.txt",
            ["help", &command.replace(' ', "-")].join("-").trim_end_matches('-')
        ));
        if update {
            std::fs::write(&file, &done.stdout).unwrap();
        }
        let recorded = std::fs::read_to_string(&file).unwrap_or_default();
        if recorded != done.stdout {
            different.push(format!("{}:\n{}", file.display(), done.stdout));
        }
    }
    assert!(
        different.is_empty(),
        "help has changed; UPDATE_GOLDEN=1 records what it is now:\n{}",
        different.join("\n")
    );
}

#[test]
fn every_command_is_recorded() {
    let world = World::new();
    for group in GROUPS {
        let mut args: Vec<&str> = group.split_whitespace().collect();
        args.push("--help");
        let help = world.run(&args).stdout;
        let commands = help.split_once("Commands:\n").expect("commands").1;
        let commands = commands.lines().take_while(|line| !line.is_empty());
        for name in commands.filter_map(|line| line.split_whitespace().next()) {
            let command = format!("{group} {name}");
            assert!(name == "help" || COMMANDS.contains(&command.trim()), "{command}");
        }
    }
}
