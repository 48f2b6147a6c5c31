//! A page of the documentation: its code blocks, what is to be done with each, and its tables.

use std::fs;
use std::path::PathBuf;

/// The directory of the workspace.
pub(crate) fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// One Markdown file.
pub(crate) struct Page {
    /// From the workspace.
    pub(crate) path: String,
    pub(crate) blocks: Vec<Block>,
    text: String,
}

/// One fenced block of code.
#[derive(Debug)]
pub(crate) struct Block {
    /// The line of the opening fence, from 1.
    pub(crate) line: usize,
    pub(crate) language: String,
    pub(crate) text: String,
    pub(crate) what: What,
}

/// What the comment before a block says is to be done with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// `run`, or `run: exit 3`: a shell runs it and ends with this status.
    Run { status: i32 },
    /// `terminal: until TEXT`: it runs in a terminal of its own, which says TEXT once it is ready.
    Terminal { until: String },
    /// `file: PATH`: it is the content of a file.
    File(String),
    /// `prints`: what the block before printed. `…` stands for anything.
    Prints,
    /// `help: convoke COMMAND`: what it prints with `--help`.
    Help(Vec<String>),
    /// `configuration`: a configuration that is valid as it stands.
    Configuration,
    /// `policy`: a policy that loads as it stands.
    Policy,
    /// `not run: WHY`, with one of [`REASONS`].
    NotRun,
    /// No comment, and the language is `text`: a drawing.
    Drawing,
}

/// Why a block may stay unexecuted. A new reason is added here, where a reviewer sees it.
const REASONS: &[&str] = &[
    "it builds the release profile, which takes minutes; the binary under test is used instead",
    "it runs this test among others",
    "it needs SPIRE, which the tests do not install",
    "it needs root and a user of its own",
];

impl Page {
    /// Reads the page at `path` from the workspace. A block that nobody says what to do with is a
    /// failure.
    pub(crate) fn read(path: &str) -> Self {
        let text = fs::read_to_string(workspace().join(path)).unwrap();
        let blocks = blocks(path, &text);
        Self { path: path.to_owned(), blocks, text }
    }

    /// The rows of the first table below the heading `heading`, without the head.
    pub(crate) fn table(&self, heading: &str) -> Vec<Vec<String>> {
        let rows: Vec<Vec<String>> = self
            .text
            .lines()
            .skip_while(|line| line.trim_start_matches('#').trim() != heading)
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'))
            .skip(2)
            .map(|line| {
                line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
            })
            .collect();
        assert!(!rows.is_empty(), "{} has no table below `{heading}`", self.path);
        rows
    }

    /// Puts `texts` in the place of the blocks that begin at these lines, and writes the page.
    pub(crate) fn rewrite(&self, texts: &[(usize, String)]) {
        let mut out = String::new();
        let mut skipping = false;
        for (index, line) in self.text.lines().enumerate() {
            if skipping && !line.starts_with("```") {
                continue;
            }
            skipping = false;
            out.push_str(line);
            out.push('\n');
            if let Some((_, text)) = texts.iter().find(|(at, _)| *at == index + 1) {
                out.push_str(text);
                skipping = true;
            }
        }
        fs::write(workspace().join(&self.path), out).unwrap();
    }
}

/// What stands between back ticks in a cell.
pub(crate) fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Where the guides are.
pub(crate) const GUIDES: &str = "docs/guides/";

/// The pages that are held to this test, from the workspace.
pub(crate) fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    for directory in ["docs", "docs/guides", "docs/reference"] {
        for file in fs::read_dir(workspace().join(directory)).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                pages.push(format!("{directory}/{name}"));
            }
        }
    }
    // What it says is measured, by a command that takes many minutes.
    pages.retain(|page| page != "docs/benchmarks.md");
    pages.sort();
    pages
}

fn blocks(path: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut comment: Option<&str> = None;
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let mut text = String::new();
            for (_, line) in lines.by_ref().take_while(|(_, line)| *line != "```") {
                text.push_str(line);
                text.push('\n');
            }
            let what = match comment.take() {
                Some(comment) => directive(comment),
                None => (language == "text").then_some(What::Drawing),
            };
            let what = what.unwrap_or_else(|| {
                panic!(
                    "{path}:{}: the comment before this block does not say what to do with it; \
                     see `What` and `REASONS` in the docs test",
                    index + 1
                )
            });
            blocks.push(Block { line: index + 1, language: language.to_owned(), text, what });
        } else if !line.trim().is_empty() {
            comment = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
        }
    }
    blocks
}

fn directive(comment: &str) -> Option<What> {
    let (word, rest) = comment.split_once(": ").unwrap_or((comment, ""));
    Some(match (word, rest) {
        ("run", "") => What::Run { status: 0 },
        ("run", rest) => What::Run { status: rest.strip_prefix("exit ")?.parse().ok()? },
        ("terminal", rest) => What::Terminal { until: rest.strip_prefix("until ")?.to_owned() },
        ("file", path) if !path.is_empty() => What::File(path.to_owned()),
        ("prints", "") => What::Prints,
        ("help", command) => {
            let words = command.strip_prefix("convoke")?.split_whitespace();
            What::Help(words.map(str::to_owned).collect())
        }
        ("configuration", "") => What::Configuration,
        ("policy", "") => What::Policy,
        ("not run", why) if REASONS.contains(&why) => What::NotRun,
        _ => return None,
    })
}

#[test]
fn a_comment_says_what_a_block_is_for() {
    for (comment, expected) in [
        ("run", Some(What::Run { status: 0 })),
        ("run: exit 7", Some(What::Run { status: 7 })),
        ("run: exit", None),
        ("terminal: until It is up", Some(What::Terminal { until: "It is up".into() })),
        ("file: src/main.rs", Some(What::File("src/main.rs".into()))),
        ("help: convoke card show", Some(What::Help(vec!["card".into(), "show".into()]))),
        ("not run: I do not feel like it", None),
        ("not run: it runs this test among others", Some(What::NotRun)),
        ("a remark", None),
    ] {
        assert_eq!(directive(comment), expected, "{comment}");
    }
}

#[test]
fn blocks_and_tables_are_found() {
    let text = "# A\n<!-- run -->\n```sh\necho\n```\n\n```text\nx\n```\n";
    let found = blocks("a.md", text);
    let shape: Vec<_> = found.iter().map(|block| (block.line, block.text.as_str())).collect();
    assert_eq!(shape, [(3, "echo\n"), (7, "x\n")]);
    assert_eq!(found[1].what, What::Drawing);
    let text = "## T\n\n| a | b |\n|---|---|\n| `x` | y, `z` |\n".to_owned();
    let page = Page { path: "a.md".into(), blocks: Vec::new(), text };
    assert_eq!(page.table("T"), [["`x`", "y, `z`"]]);
    assert_eq!(code("`x`, y and `z`").collect::<Vec<_>>(), ["x", "z"]);
}

#[test]
#[should_panic(expected = "a.md:2: the comment before this block")]
fn a_block_without_a_comment_fails() {
    blocks("a.md", "text\n```sh\necho\n```\n");
}
