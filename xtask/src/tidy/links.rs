//! Links from one page of the documentation to another lead somewhere.

use std::collections::{BTreeMap, BTreeSet};

use super::Problem;
use super::rust_text::line_of;
use super::tree::Tree;

/// What is written by hand of the page on commands, and that page.
const COMMAND_PROSE: &str = "crates/cli/src/man/";
const COMMAND_PAGE: &str = "docs/reference/cli.md";

/// Every relative link in a Markdown page names a file or directory of the project, and a
/// heading that the page has.
pub(crate) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree.ending(".md") {
        let prose = prose_only(text);
        // These are parts of one page, where their links are read.
        let page = if path.starts_with(COMMAND_PROSE) { COMMAND_PAGE } else { path };
        for (line, target) in links(&prose) {
            if let Some(what) = broken(tree, page, target) {
                problems.push(Problem::new(path, line, what));
            }
        }
    }
    problems
}

/// Why a link is broken, if it is.
fn broken(tree: &Tree, from: &str, target: &str) -> Option<String> {
    // A colon before any slash is a scheme: somebody else's page.
    if target.split('/').next().is_some_and(|first| first.contains(':')) {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    if file.starts_with('/') {
        return Some(format!(
            "`{target}` begins at the root of a disk or host: link relative to this page"
        ));
    }
    let place = if file.is_empty() { Some(from.to_owned()) } else { resolve(from, file) };
    let Some(place) = place.filter(|place| tree.exists(place)) else {
        return Some(format!("`{target}` does not exist: mend the link or write the page"));
    };
    if anchor.is_empty() || !place.ends_with(".md") {
        return None;
    }
    let page = tree.text(&place).unwrap_or_default();
    (!anchors(page).contains(anchor))
        .then(|| format!("`{place}` has no heading `#{anchor}`: name one that it has"))
}

/// The path that `target` means on the page `from`; nothing when it leaves the project.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The page with code blanked; lines keep their numbers.
fn prose_only(text: &str) -> String {
    let mut prose = String::with_capacity(text.len());
    let mut fence: Option<&str> = None;
    for line in text.split_inclusive('\n') {
        let start = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| start.starts_with(mark));
        match (fence, mark) {
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, Some(mark)) => fence = Some(mark),
            (None, None) => {
                prose.push_str(line);
                continue;
            }
            _ => {}
        }
        prose.push('\n');
    }
    // Code within a line: every second part between back ticks.
    prose
        .split_inclusive('\n')
        .flat_map(|line| line.split('`').enumerate())
        .filter(|(index, part)| index % 2 == 0 || part.ends_with('\n'))
        .map(|(_, part)| part)
        .collect()
}

/// The targets of `[text](target)` and of `[name]: target`, with their lines.
fn links(prose: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, _) in prose.match_indices("](") {
        let rest = &prose[at + 2..];
        if let Some(end) = rest.find([')', '\n']) {
            // A title may follow: `(page.md "The page")`.
            let target = rest[..end].split_whitespace().next().unwrap_or_default();
            found.push((line_of(prose, at), target.trim_matches(['<', '>'])));
        }
    }
    for (index, line) in prose.lines().enumerate() {
        let definition = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]:"));
        if let Some((name, target)) = definition
            && !name.starts_with('^')
            && !name.contains(']')
        {
            let target = target.split_whitespace().next().unwrap_or_default();
            found.push((index + 1, target.trim_matches(['<', '>'])));
        }
    }
    found
}

/// The anchors of a page's headings, as the usual renderers make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    let mut fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        let title = line.trim_start_matches('#');
        if fenced || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let slug: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                '-' | '_' => Some(c),
                c if c.is_alphanumeric() => Some(c),
                _ => None,
            })
            .collect();
        let times = seen.entry(slug.clone()).or_default();
        anchors.insert(if *times == 0 { slug } else { format!("{slug}-{times}") });
        *times += 1;
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_page(page: &str, expected: &[usize]) {
        let tree = Tree::of(&[
            ("docs/a.md", page),
            ("docs/b.md", "# One thing\n## It's `two` & more\n# One thing\n"),
            ("README.md", "# Read me\n"),
        ]);
        let problems = check(&tree);
        let lines: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, expected, "{page}: {problems:?}");
    }

    #[test]
    fn files() {
        check_page("[b](b.md), [r](../README.md), [d](../docs), [dir](./)\n", &[]);
        check_page("\n[b](c.md) and ![p](p.png)\n", &[2, 2]);
        check_page("[out](../../x.md)\n[root](/docs/b.md)\n", &[1, 2]);
        check_page("[web](https://example.org/x.md) [mail](mailto:a@example.org)\n", &[]);
        check_page("[t](b.md \"The page\") [angle](<b.md>)\n", &[]);
        check_page("[b]: b.md\n[c]: c.md\n[^1]: a note\n", &[2]);
    }

    #[test]
    fn headings() {
        check_page("[1](b.md#one-thing) [2](b.md#its-two--more) [3](b.md#one-thing-1)\n", &[]);
        check_page("# Here\n[h](#here)\n[x](#there)\n[y](b.md#one-thing-2)\n", &[3, 4]);
    }

    #[test]
    fn code_is_no_prose() {
        check_page("```md\n[b](c.md)\n```\n`[b](c.md)` and [x](d.md)\n", &[4]);
        check_page("~~~\n```\n[b](c.md)\n~~~\n[b](c.md)\n", &[5]);
    }
}
