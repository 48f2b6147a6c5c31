//! `docs/demo.svg` shows the words of a real run of the demo. Another run says the same, but for
//! numbers of ports and processes, times, and the order of what happens at once.

use std::fmt::Write as _;
use std::fs;

use crate::page::workspace;
use crate::play::UPDATE;
use crate::world::World;

const PICTURE: &str = "docs/demo.svg";

/// The height of a line and the width of a character, in pixels.
const LINE: usize = 20;
const CHARACTER: f64 = 7.85;

/// Where a long line is broken, in characters.
const COLUMNS: usize = 132;

/// The space around the text, in pixels.
const MARGIN: usize = 20;

#[test]
fn the_picture_is_of_the_demo() {
    let words = demo();
    if std::env::var_os(UPDATE).is_some() {
        fs::write(workspace().join(PICTURE), draw(&words)).unwrap();
    }
    let picture = fs::read_to_string(workspace().join(PICTURE)).unwrap();
    let (shown, said) = (shape(&text_of(&picture)), shape(&uncoloured(&words)));
    assert_eq!(shown, said, "set {UPDATE}=1 to have it drawn again");
}

/// What the demo writes to a terminal, colours included, without its results.
fn demo() -> String {
    let mut world = World::new();
    let output = world.run("cargo run --release -- --color always demo");
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words}");
    words
}

/// Lines without what differs from run to run, in an order of their own.
fn shape(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(masked).filter(|line| !line.is_empty()).collect();
    lines.sort();
    lines
}

fn masked(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let word = match word.split_once("convoke-demo-") {
            // Where the demo keeps its files.
            Some((_, rest)) => format!("convoke-demo-{rest}"),
            None => word.to_owned(),
        };
        if let Some((before, _)) = word.split_once("/user/") {
            return format!("{before}/user/#");
        }
        let mut out = String::new();
        for c in word.chars() {
            match c {
                '0'..='9' if out.ends_with('#') => {}
                '0'..='9' => out.push('#'),
                c => out.push(c),
            }
        }
        match out.as_str() {
            "#.#" => "#".to_owned(),
            // A time may be short in one run and long in another.
            "µs" | "ms" | "s" => "time".to_owned(),
            _ => out,
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Text with the colours of a terminal, in pieces: the number of the colour, and the text.
fn pieces(line: &str) -> Vec<(&str, &str)> {
    let mut pieces = Vec::new();
    for (index, piece) in line.split("\u{1b}[").enumerate() {
        let (colour, text) =
            if index == 0 { ("0", piece) } else { piece.split_once('m').unwrap_or(("0", piece)) };
        if !text.is_empty() {
            pieces.push((colour, text));
        }
    }
    pieces
}

fn uncoloured(text: &str) -> String {
    text.lines()
        .map(|line| pieces(line).iter().map(|(_, text)| *text).collect::<String>() + "\n")
        .collect()
}

fn draw(words: &str) -> String {
    // Neither who made the picture nor where is of interest.
    let mut drawn = String::new();
    for line in words.lines() {
        let line = match (line.find("/tmp/"), line.find("convoke-demo-")) {
            (Some(at), Some(end)) if at < end => format!("{}/tmp/{}", &line[..at], &line[end..]),
            _ => line.to_owned(),
        };
        drawn.push_str(&line.replace("/user/root", "/user/anna"));
        drawn.push('\n');
    }
    let rows: Vec<_> = drawn.lines().flat_map(rows).collect();
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let width = (COLUMNS as f64 * CHARACTER) as usize + 2 * MARGIN;
    let height = rows.len() * LINE + 2 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" xml:space=\"preserve\" role=\"img\" \
         aria-label=\"the words that convoke demo prints\">\n\
         <style>\n\
         rect {{ fill: #11151c }}\n\
         text {{ fill: #d5dae3; font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, \
         \"DejaVu Sans Mono\", monospace; white-space: pre }}\n\
         .c1 {{ font-weight: bold; fill: #ffffff }}\n\
         .c2 {{ fill: #8b94a5 }}\n\
         .c31 {{ fill: #ff7b72 }}\n\
         .c32 {{ fill: #6fd08c }}\n\
         .c36 {{ fill: #6cc7e0 }}\n\
         </style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\"/>\n"
    );
    for (index, row) in rows.iter().enumerate() {
        let y = MARGIN + (index + 1) * LINE - 6;
        let spans: String = row
            .pieces
            .iter()
            .map(|(colour, text)| match *colour {
                "0" => escape(text),
                colour => format!("<tspan class=\"c{colour}\">{}</tspan>", escape(text)),
            })
            .collect();
        if !spans.is_empty() {
            let class = if row.goes_on { " class=\"on\"" } else { "" };
            let _ = writeln!(svg, "<text{class} x=\"{MARGIN}\" y=\"{y}\">{spans}</text>");
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// One row of the picture: a line, or a part of one.
#[derive(Default)]
struct Row<'a> {
    pieces: Vec<(&'a str, String)>,
    /// It goes on with the line of the row before.
    goes_on: bool,
}

/// Breaks a line between words where it is too long.
fn rows(line: &str) -> Vec<Row<'_>> {
    let (mut rows, mut row, mut column) = (Vec::new(), Row::default(), 0);
    for (colour, text) in pieces(line) {
        row.pieces.push((colour, String::new()));
        for word in text.split_inclusive(' ') {
            let length = word.chars().count();
            if column > 0 && column + word.trim_end().chars().count() > COLUMNS {
                rows.push(std::mem::take(&mut row));
                row = Row { pieces: vec![(colour, String::new())], goes_on: true };
                column = 0;
            }
            column += length;
            if let Some((_, text)) = row.pieces.last_mut() {
                text.push_str(word);
            }
        }
    }
    rows.push(row);
    rows
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The lines of text of a picture that [`draw`] made.
fn text_of(svg: &str) -> String {
    let mut text = String::new();
    for line in svg.lines().filter(|line| line.starts_with("<text")) {
        if !line.starts_with("<text class=\"on\"") {
            text.push('\n');
        }
        for (_, piece) in line.split('<').filter_map(|piece| piece.split_once('>')) {
            text.push_str(piece);
        }
    }
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

#[test]
fn a_picture_says_what_it_was_drawn_from() {
    let words = "\u{1b}[1mA\u{1b}[0m <b> & c\n\n  d\n";
    assert_eq!(text_of(&draw(words)), "\nA <b> & c\n  d");
    assert_eq!(uncoloured(words), "A <b> & c\n\n  d\n");
    let long = "\u{1b}[2many words\u{1b}[0m ".repeat(30);
    assert!(draw(&long).contains("class=\"on\""));
    assert_eq!(text_of(&draw(&long)).trim(), uncoloured(&long).trim());
}

#[test]
fn what_differs_from_run_to_run_is_masked() {
    for (one, other) in [
        ("in 150 µs", "in 9.0 ms"),
        ("x https://localhost:40161  pid 28576", "x  https://localhost:443 pid 1"),
        ("in /tmp/a/convoke-demo-1", "in /var/convoke-demo-22"),
        ("spiffe://example.org/user/ann →", "spiffe://example.org/user/b →"),
    ] {
        assert_eq!(masked(one), masked(other));
    }
    assert_ne!(masked("allowed by x in 1 µs"), masked("refused by x in 1 µs"));
}
