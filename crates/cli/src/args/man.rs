//! `convoke man`: the manual, made of the same table as the help.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Write the manual pages
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  convoke man ~/.local/share/man/man1
  convoke man | man -l -")]
pub(crate) struct Man {
    /// Write a page for each command here [default: the page of `convoke` on standard output]
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
    /// Print the reference of all commands, as one page of Markdown, instead
    #[arg(long, conflicts_with = "dir")]
    pub(crate) markdown: bool,
    /// Report the files that were written as JSON; a page by itself is the result
    #[arg(long, requires = "dir")]
    pub(crate) json: bool,
}
