//! `convoke config`: what a configuration comes to, its schema, and other shapes of it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use convoke::serve::Config;
use convoke::serve::config::{Migration, Origin, migrate, schema};
use serde_json::json;

use crate::args::{ConfigMigrate, ConfigSchema, ConfigShow};
use crate::exit::{Code, Failure};
use crate::paint::{Paint, say};
use crate::validate::{self, Wrong};
use crate::{input, output};

/// `convoke config show`.
pub(crate) fn show(options: &ConfigShow, paint: Paint) -> Result<(), Failure> {
    let name = options.config.display().to_string();
    let (config, mut settings) = Config::load_explained(&options.config)
        .map_err(|error| wrong(&error, &name, options.json, paint))?;
    settings.retain(|setting| {
        !options.changed || !(setting.is_default || setting.origin == Origin::Default)
    });
    let mut text = String::new();
    if options.json {
        let values = settings.iter().map(|setting| {
            let from = match &setting.origin {
                Origin::Default => json!({"from": "default"}),
                Origin::File { line } => json!({"from": "file", "line": line}),
                Origin::Variable(name) => json!({"from": "environment", "variable": name}),
            };
            let mut row = json!({"key": setting.path, "value": setting.value});
            if let (Some(row), Some(from)) = (row.as_object_mut(), from.as_object()) {
                row.extend(from.clone());
            }
            row
        });
        let values: Vec<_> = values.collect();
        text.push_str(&json!({"config": name, "settings": values}).to_string());
        text.push('\n');
    } else {
        for setting in &settings {
            let Some(value) = &setting.value else { continue };
            text.push_str(&format!("{}: {value}  # {}\n", setting.path, setting.origin));
        }
        for warning in config.warnings() {
            say(format!("{} {name}: {warning}", paint.bold("warning:")));
        }
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// `convoke config schema`.
pub(crate) fn print_schema(options: &ConfigSchema) -> Result<(), Failure> {
    let schema = schema();
    if options.json {
        return output::print(&schema);
    }
    output::print_text(&format!("{schema:#}\n"))
}

/// `convoke config migrate`.
pub(crate) fn run_migrate(options: &ConfigMigrate, paint: Paint) -> Result<(), Failure> {
    let text = input::text(&options.file)?;
    let name = match options.file.as_str() {
        "-" => "standard input",
        file => Path::new(file).file_name().and_then(|name| name.to_str()).unwrap_or(file),
    };
    let migration =
        migrate(&text, name).map_err(|error| wrong(&error, name, options.json, paint))?;
    if options.json {
        let text = format!("{}\n", report(&migration));
        std::io::stdout().write_all(text.as_bytes())?;
    } else {
        write(&migration, options.out.as_deref())?;
        say(format!(
            "{} {}: {} to decide, {} without a meaning here; the comments at the top list them",
            paint.good("migrated:"),
            migration.shape,
            things(migration.decisions.len(), "thing"),
            things(migration.dropped.len(), "key"),
        ));
    }
    match &migration.problems {
        None => Ok(()),
        Some(error) if options.json => {
            Err(Failure::new(Code::Usage, summary(error.problems.len())))
        }
        Some(error) => Err(wrong(error, "the result", false, paint)),
    }
}

fn report(migration: &Migration) -> serde_json::Value {
    let dropped = migration.dropped.iter();
    let dropped = dropped.map(|key| json!({"key": key.path, "line": key.line, "why": key.why}));
    let problems = migration.problems.iter().flat_map(Wrong::all);
    json!({
        "shape": migration.shape,
        "text": migration.text,
        "decisions": migration.decisions,
        "dropped": dropped.collect::<Vec<_>>(),
        "problems": problems.collect::<Vec<_>>(),
    })
}

fn write(migration: &Migration, out: Option<&Path>) -> Result<(), Failure> {
    let bytes = migration.text.as_bytes();
    let Some(path) = out else { return Ok(std::io::stdout().write_all(bytes)?) };
    let fail = |error| Failure::of_file(Code::Usage, path.display(), &error);
    let mut file = File::create_new(path).map_err(|error| {
        fail(error).hint("the result is written to a file that is not there yet; name another")
    })?;
    file.write_all(bytes).map_err(fail)
}

/// Prints what is wrong with a configuration, line by line, and gives the failure that ends it.
fn wrong(error: &convoke::serve::ConfigError, name: &str, as_json: bool, paint: Paint) -> Failure {
    if as_json {
        // The one object of the failure has all of it.
        return Failure::new(Code::Usage, error);
    }
    let problems = Wrong::all(error);
    validate::print(&problems, name, paint);
    Failure::new(Code::Usage, summary(problems.len()))
}

fn summary(problems: usize) -> String {
    format!("{} to mend", things(problems, "problem"))
}

fn things(count: usize, thing: &str) -> String {
    match count {
        0 => format!("no {thing}s"),
        1 => format!("one {thing}"),
        many => format!("{many} {thing}s"),
    }
}
