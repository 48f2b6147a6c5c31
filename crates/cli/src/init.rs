//! `convoke init`: writes a project that builds, runs and passes its tests.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::args::{Init, Template};
use crate::exit::{Code, Failure};
use crate::output;
use crate::paint::{Paint, say};

/// Longest name of an agent, in bytes: it is a package, a program and a part of a SPIFFE ID.
const NAME_BYTES_MAX: usize = 64;

/// Names that cargo refuses or that would hide what the project needs.
const TAKEN: [&str; 9] =
    ["alloc", "build", "convoke", "core", "deps", "examples", "proc_macro", "std", "test"];

/// The words of the language. Source: the Rust reference, "Keywords", strict and reserved.
const KEYWORDS: &str = " abstract as async await become box break const continue crate do dyn else \
    enum extern false final fn for gen if impl in let loop macro match mod move mut override priv \
    pub ref return self static struct super trait true try type typeof unsafe unsized use virtual \
    where while yield ";

/// Why a project that depends on the registry does not build, and the cure.
const UNPUBLISHED: &str = "the crate `convoke` is not published yet, so cargo will not find it: \
    clone the repository and write `convoke = { path = \"CLONE/crates/convoke\" }` into Cargo.toml, \
    or begin again with --convoke-path CLONE";

macro_rules! template {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../templates/", $path)))),*]
    };
}

/// The files of each template, by their paths below `templates/`.
const MINIMAL: &[(&str, &str)] = template![
    "minimal/Cargo.toml.in",
    "minimal/README.md",
    "minimal/config.yaml",
    "minimal/gitignore",
    "minimal/policy.rego",
    "minimal/policy_test.rego",
    "minimal/src/main.rs",
];

/// As [`MINIMAL`].
const FULL: &[(&str, &str)] = template![
    "full/Cargo.toml.in",
    "full/README.md",
    "full/config.yaml",
    "full/gitignore",
    "full/policies/policy.rego",
    "full/policies/policy_test.rego",
    "full/policies/teams.json",
    "full/src/main.rs",
];

pub(crate) fn run(options: &Init, paint: Paint) -> Result<(), Failure> {
    let name = name(options)?;
    let dependency = dependency(options.convoke_path.as_deref())?;
    prepare(&options.dir)?;
    let words = [
        ("{{name}}", name.clone()),
        ("{{Name}}", type_name(&name)),
        ("{{trust_domain}}", options.trust_domain.to_string()),
        ("{{convoke}}", dependency.toml),
    ];
    let template = match options.template {
        Template::Minimal => MINIMAL,
        Template::Full => FULL,
    };
    let mut written = Vec::new();
    for (path, text) in template {
        let text = words.iter().fold((*text).to_owned(), |text, (from, to)| text.replace(from, to));
        write(&options.dir.join(target(path)), text.as_bytes())?;
        written.push(target(path).display().to_string());
    }
    if let Some(lock) = dependency.lock {
        write(&options.dir.join("Cargo.lock"), &lock)?;
        written.push("Cargo.lock".to_owned());
    }
    tell(options, &name, &written, paint)
}

/// Says that the files `written` are there, and what comes next.
fn tell(options: &Init, name: &str, written: &[String], paint: Paint) -> Result<(), Failure> {
    let policies = match options.template {
        Template::Minimal => "policy.rego policy_test.rego",
        Template::Full => "policies",
    };
    let dir = options.dir.display();
    // Without the crate no cargo command succeeds, whatever the project says.
    let missing = options.convoke_path.is_none().then_some(UNPUBLISHED);
    let next = [
        format!("cd {}", shell_word(&dir.to_string())),
        "cargo test".to_owned(),
        format!("convoke policy test {policies}"),
        "convoke validate config.yaml".to_owned(),
    ];
    if options.json {
        return output::print(&json!({
            "agent": name,
            "directory": dir.to_string(),
            "written": written,
            "next": next,
            "warnings": missing.iter().collect::<Vec<_>>(),
        }));
    }
    say(format!("{} the agent `{name}` in {dir}", paint.good("written:")));
    for path in written {
        say(format!("  {path}"));
    }
    if let Some(missing) = missing {
        say(format!("{} {missing}", paint.warn("warning:")));
    }
    say(format!("next: {}; see README.md", next.join(" && ")));
    Ok(())
}

/// `text` as one word of a shell.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    match !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        true => text.to_owned(),
        // `cd -` goes elsewhere, and `-x` is an option.
        false if text.starts_with('-') => format!("'./{}'", text.replace('\'', "'\\''")),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// The name that was given, or the directory's, if it can be the name of a package.
fn name(options: &Init) -> Result<String, Failure> {
    let directory = || {
        let dir = std::path::absolute(&options.dir).ok()?;
        Some(dir.file_name()?.to_str()?.to_ascii_lowercase().replace([' ', '.'], "-"))
    };
    let name = options.name.clone().or_else(directory).unwrap_or_default();
    match check_name(&name) {
        Ok(()) => Ok(name),
        Err(why) => Err(Failure::new(
            Code::Usage,
            format_args!("`{}` cannot be the name of an agent: {why}", crate::paint::plain(&name)),
        )
        .hint("give one with --name, such as document-worker")),
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        Err("it begins with a small letter")
    } else if !name.chars().all(is_plain) || name.ends_with(['-', '_']) {
        Err("it has small letters, digits, `-` and `_` between them")
    } else if name.len() > NAME_BYTES_MAX {
        Err("it has at most 64 bytes")
    } else if TAKEN.contains(&name) || KEYWORDS.contains(&format!(" {name} ")) {
        Err("the name is taken by Rust or by Convoke")
    } else {
        Ok(())
    }
}

/// `document-worker` as the name of a type: `DocumentWorker`.
fn type_name(name: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
    };
    let name = name.split(['-', '_']).map(capital).collect::<Vec<String>>().concat();
    // Names that the program uses.
    let is_used = ["Config", "Context", "Err", "HandlerError", "Ok", "Result", "String"];
    if is_used.contains(&name.as_str()) { format!("{name}Agent") } else { name }
}

/// How the project depends on Convoke.
struct Dependency {
    /// What stands behind `convoke =` in its manifest.
    toml: String,
    /// The versions that a checkout is tested with.
    lock: Option<Vec<u8>>,
}

fn dependency(checkout: Option<&Path>) -> Result<Dependency, Failure> {
    let Some(path) = checkout else {
        let toml = format!("\"{}\"", env!("CARGO_PKG_VERSION"));
        return Ok(Dependency { toml, lock: None });
    };
    let root = fs::canonicalize(path)
        .map_err(|error| Failure::of_file(Code::Usage, path.display(), &error))?;
    let of_crate = root.join("crates/convoke");
    if !of_crate.join("Cargo.toml").is_file() {
        let message = format!("{} is no checkout of Convoke", path.display());
        return Err(Failure::new(Code::Usage, message).hint("it has no crates/convoke/Cargo.toml"));
    }
    let text = of_crate.to_str().ok_or_else(|| {
        Failure::new(
            Code::Usage,
            "the path of the checkout is not UTF-8, which a manifest has to be",
        )
    })?;
    // A JSON string is a string of TOML too.
    let toml = format!("{{ path = {} }}", serde_json::Value::from(text));
    Ok(Dependency { toml, lock: fs::read(root.join("Cargo.lock")).ok() })
}

/// Makes the directory, or makes sure that nothing in it can be written over.
fn prepare(dir: &Path) -> Result<(), Failure> {
    let fail = |error| Failure::of_file(Code::Usage, dir.display(), &error);
    fs::create_dir_all(dir).map_err(fail)?;
    for entry in fs::read_dir(dir).map_err(fail)? {
        // An empty repository is an empty directory to whoever made it.
        if entry.map_err(fail)?.file_name() != ".git" {
            let message = format!("{} is not empty", dir.display());
            return Err(Failure::new(Code::Usage, message).hint("name a directory to be made"));
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let fail = |error| Failure::of_file(Code::Failure, path.display(), &error);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    // Whatever has come there meanwhile is somebody's.
    let mut file = fs::File::create_new(path).map_err(fail)?;
    file.write_all(bytes).map_err(fail)
}

/// Where the template `path` is written: two names would mean something where they are kept.
fn target(path: &str) -> PathBuf {
    let path = path.split_once('/').map_or(path, |(_, rest)| rest);
    PathBuf::from(match path {
        "Cargo.toml.in" => "Cargo.toml",
        "gitignore" => ".gitignore",
        path => path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_packages() {
        for name in ["a", "greeter", "document-worker", "a_b2"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        let long = "a".repeat(65);
        for name in ["", "A", "2a", "a b", "a/b", "a-", "fn", "test", "convoke", "-a", "é", &long]
        {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert_eq!(type_name("document-worker_2"), "DocumentWorker2");
        assert_eq!(type_name("context"), "ContextAgent");
    }

    #[test]
    fn a_directory_is_one_word_of_a_shell() {
        for (text, expected) in [
            ("greeter", "greeter"),
            ("../a/b-c_d.e", "../a/b-c_d.e"),
            ("Bad Name", "'Bad Name'"),
            ("it's", "'it'\\''s'"),
            ("$(x)", "'$(x)'"),
            ("-x", "'./-x'"),
            ("~", "'~'"),
        ] {
            assert_eq!(shell_word(text), expected);
        }
    }

    #[test]
    fn every_file_of_a_template_is_written() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
        let mut found = Vec::new();
        let mut directories = vec![root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => directories.push(path),
                    false => found.push(path.strip_prefix(&root).unwrap().display().to_string()),
                }
            }
        }
        found.sort();
        let listed = [FULL, MINIMAL].concat();
        let mut listed: Vec<_> = listed.iter().map(|(path, _)| (*path).to_owned()).collect();
        listed.sort();
        assert_eq!(listed, found);
        for (path, text) in [FULL, MINIMAL].concat() {
            let rest = ["{{name}}", "{{Name}}", "{{trust_domain}}", "{{convoke}}"]
                .iter()
                .fold(text.to_owned(), |text, word| text.replace(word, ""));
            assert!(!rest.contains("{{"), "{path} has a word that nobody puts in");
        }
    }
}
