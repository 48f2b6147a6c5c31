//! Which events are logged.

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};

/// Libraries below us, whose chatter is not the agent's story.
const LIBRARIES: [&str; 13] = [
    "h2",
    "hyper",
    "hyper_util",
    "jsonschema",
    "mio",
    "regorus",
    "rustls",
    "spiffe",
    "tokio",
    "tokio_rustls",
    "tonic",
    "tower",
    "webpki",
];

/// Most directives of one filter.
const DIRECTIVES_MAX: usize = 64;

/// Why a filter is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// An item is neither a level nor a target with a level.
    #[error(
        "log filter `{0}` is neither a level nor `target=level`; levels are off, error, warn, info, debug, trace"
    )]
    Directive(String),
    /// More items than anybody needs.
    #[error("the log filter has more than {max} items")]
    TooMany {
        /// The limit that was passed.
        max: usize,
    },
}

/// The rule of [`LogOptions`](super::LogOptions) as a filter.
pub(super) fn targets(level: Level, directives: Option<&str>) -> Result<Targets, FilterError> {
    let items = directives.unwrap_or_default().split(',').map(str::trim);
    let items = items.filter(|item| !item.is_empty()).collect::<Vec<_>>();
    let mut targets = Targets::new().with_default(level);
    if items.is_empty() {
        if level <= Level::INFO {
            let quiet = LevelFilter::from_level(level.min(Level::WARN));
            // A target is matched by its beginning; the colons keep `hyper` from being `hyperagent`.
            let modules = LIBRARIES.map(|library| (format!("{library}::"), quiet));
            targets = targets.with_targets(modules);
        }
        return Ok(targets);
    }
    if items.len() > DIRECTIVES_MAX {
        return Err(FilterError::TooMany { max: DIRECTIVES_MAX });
    }
    for item in items {
        let wrong = || FilterError::Directive(item.chars().take(64).collect());
        targets = match item.split_once('=') {
            None => targets.with_default(level_filter(item).ok_or_else(wrong)?),
            Some((target, level)) if !target.trim().is_empty() => {
                targets.with_target(target.trim(), level_filter(level.trim()).ok_or_else(wrong)?)
            }
            Some(_) => return Err(wrong()),
        };
    }
    Ok(targets)
}

fn level_filter(word: &str) -> Option<LevelFilter> {
    match word.to_ascii_lowercase().as_str() {
        "off" => Some(LevelFilter::OFF),
        "error" => Some(LevelFilter::ERROR),
        "warn" | "warning" => Some(LevelFilter::WARN),
        "info" => Some(LevelFilter::INFO),
        "debug" => Some(LevelFilter::DEBUG),
        "trace" => Some(LevelFilter::TRACE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(level: Level, directives: Option<&str>, enabled: &[(&str, Level, bool)]) {
        let targets = targets(level, directives).unwrap();
        for (target, at, expected) in enabled {
            assert_eq!(targets.would_enable(target, at), *expected, "{directives:?} {target} {at}");
        }
    }

    #[test]
    fn libraries_are_quiet_unless_somebody_looks_for_a_fault() {
        let (info, warn, debug) = (Level::INFO, Level::WARN, Level::DEBUG);
        check(
            info,
            None,
            &[
                ("convoke_node", info, true),
                ("document_pipeline::worker", info, true),
                ("document_pipeline::worker", debug, false),
                ("hyper::proto", info, false),
                ("hyper::proto", warn, true),
                ("hyperagent::greet", info, true),
            ],
        );
        check(
            Level::ERROR,
            None,
            &[("rustls::conn", warn, false), ("rustls::conn", Level::ERROR, true)],
        );
        check(debug, None, &[("h2", debug, true), ("h2", Level::TRACE, false)]);
    }

    #[test]
    fn a_filter_says_it_exactly() {
        let (info, debug) = (Level::INFO, Level::DEBUG);
        check(
            info,
            Some("warn, hyper = debug"),
            &[("convoke_node", info, false), ("hyper::proto", debug, true)],
        );
        check(
            debug,
            Some("h2=off"),
            &[("convoke_node", debug, true), ("h2", Level::ERROR, false), ("rustls", debug, true)],
        );
        check(info, Some(" , "), &[("hyper::proto", info, false)]);
    }

    #[test]
    fn a_typo_is_refused() {
        for text in ["ifno", "hyper=loud", "=info", "hyper=", "info;debug"] {
            assert_eq!(
                targets(Level::INFO, Some(text)).err(),
                Some(FilterError::Directive(text.into()))
            );
        }
        let many = vec!["info"; DIRECTIVES_MAX + 1].join(",");
        let error = FilterError::TooMany { max: DIRECTIVES_MAX };
        assert_eq!(targets(Level::INFO, Some(&many)).err(), Some(error));
    }
}
