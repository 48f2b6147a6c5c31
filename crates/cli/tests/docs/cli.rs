//! `docs/reference/cli.md` is what the program says of itself.

use std::fs;
use std::process::Command;

use crate::page::workspace;
use crate::play::{UPDATE, lossy};

const PAGE: &str = "docs/reference/cli.md";

/// The page as the program writes it.
fn generated() -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convoke"));
    let output = command.args(["man", "--markdown"]).output().unwrap();
    assert!(output.status.success(), "{}", lossy(&output.stderr));
    lossy(&output.stdout)
}

#[test]
fn the_page_is_that_of_the_program() {
    let expected = generated();
    let file = workspace().join(PAGE);
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&file, &expected).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap();
    assert!(found == expected, "{PAGE} is not as generated: set {UPDATE}=1 to have it written");
}
