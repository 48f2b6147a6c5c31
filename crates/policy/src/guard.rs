//! Functions of the engine that make or do more than the size of their arguments, and a bound on
//! each that is checked before they begin.
//!
//! The bound on time does not stop a function: none looks at the clock before it is done, and
//! parameters of a few megabytes are enough for `replace` to ask for terabytes. So these functions
//! are called by way of an extension of the engine, which adds up beforehand what a call would cost.
//! Functions whose cost is a mere number in their arguments, such as `numbers.range`, are refused at
//! load instead; all others take time and memory in proportion to their arguments, whose bytes are
//! bounded.

use regorus::unstable::{BUILTINS, Expr, Ref, Span};
use regorus::{Engine, Source, Value};

/// Most that one call may make or compare, in bytes.
///
/// Source: copying or comparing as much takes a few milliseconds, which is what one evaluation may
/// take altogether.
pub(crate) const COST_MAX: u64 = 16 * 1024 * 1024;

/// What one text in an array takes beside its bytes: the value, the count of its owners and the
/// allocator's own.
const PIECE: u64 = 64;

/// What one value in an array takes.
const SLOT: u64 = 24;

/// Longest path that `json.filter` and `json.remove` may be given: they recurse once for each part,
/// and a path of 100,000 ended the process.
const PATH_PARTS_MAX: usize = 128;

/// What a call of these arguments costs at most.
type Cost = fn(&[Value]) -> u64;

/// In alphabetical order.
const GUARDED: &[(&str, Cost)] = &[
    ("concat", concat),
    ("glob.match", |args| patterned(args, 0, 2)),
    ("indexof", |args| len(args, 0).saturating_mul(len(args, 1))),
    ("indexof_n", |args| len(args, 0).saturating_mul(len(args, 1).saturating_add(SLOT))),
    ("json.filter", paths),
    ("json.remove", paths),
    ("json.unmarshal", unmarshal),
    ("object.union_n", |args| match args.first() {
        Some(Value::Array(items)) => {
            let keys: u64 = items.iter().map(fields).sum();
            (items.iter().count() as u64).saturating_mul(keys).saturating_mul(SLOT)
        }
        _ => 0,
    }),
    ("product", product),
    ("regex.find_all_string_submatch_n", |args| {
        let groups = text(args, 0).matches('(').count() as u64 + 1;
        found(args).saturating_mul(groups).saturating_add(patterned(args, 0, 1))
    }),
    ("regex.find_n", |args| found(args).saturating_add(patterned(args, 0, 1))),
    ("regex.match", |args| patterned(args, 0, 1)),
    ("regex.replace", regex_replace),
    ("regex.split", |args| {
        let pieces = len(args, 1).saturating_add(1).saturating_mul(PIECE);
        pieces.saturating_add(patterned(args, 0, 1))
    }),
    ("regex.template_match", |args| patterned(args, 0, 1)),
    ("replace", |args| replaced(len(args, 0), text(args, 0), text(args, 1), text(args, 2))),
    ("split", split),
    ("strings.any_prefix_match", pairs),
    ("strings.any_suffix_match", pairs),
    ("strings.replace_n", replace_n),
    ("trim", |args| len(args, 0).saturating_mul(len(args, 1))),
    ("trim_left", |args| len(args, 0).saturating_mul(len(args, 1))),
    ("trim_right", |args| len(args, 0).saturating_mul(len(args, 1))),
    ("units.parse", |args| quantity(text(args, 0))),
    ("units.parse_bytes", |args| quantity(text(args, 0))),
    ("walk", |args| args.first().map_or(0, |value| walked(value, 1, COST_MAX))),
];

/// The guarded function of this name.
pub(crate) fn guarded(function: &str) -> Option<&'static str> {
    GUARDED.iter().map(|(name, _)| *name).find(|name| *name == function)
}

/// Every guarded function, for a policy that puts functions in the place of others.
pub(crate) fn all() -> impl Iterator<Item = &'static str> {
    GUARDED.iter().map(|(name, _)| *name)
}

/// Puts a guard before each of `functions` in `engine`.
///
/// # Errors
///
/// What the engine says of a function that it has twice.
pub(crate) fn install(engine: &mut Engine, functions: &[&'static str]) -> anyhow::Result<()> {
    for (name, cost) in GUARDED.iter().copied() {
        if !functions.contains(&name) {
            continue;
        }
        let Some((function, arguments)) = BUILTINS.get(name).copied() else { continue };
        // A function of the engine takes the expressions of its arguments along, for messages. Ours
        // say the same of a place that the engine then puts in front of the true one.
        let source = Source::from_contents(name.to_owned(), name.to_owned())?;
        let span = Span { source, line: 1, col: 1, start: 0, end: 0 };
        let nothing = || Expr::Null { span: span.clone(), value: Value::Null, eidx: 0 };
        let places: Vec<Ref<Expr>> = (0..arguments).map(|_| Ref::new(nothing())).collect();
        let span = span.clone();
        let call = move |args: Vec<Value>| {
            if cost(&args) > COST_MAX {
                anyhow::bail!(
                    "`{name}` would do more than {COST_MAX} bytes of work; bound the size of what \
                     it is given"
                );
            }
            function(&span, &places, &args, true)
        };
        engine.add_extension(name.to_owned(), arguments, Box::new(call))?;
    }
    Ok(())
}

/// The text at `index`, or nothing: what is no text makes the function fail at once.
fn text(args: &[Value], index: usize) -> &str {
    match args.get(index) {
        Some(Value::String(text)) => text,
        _ => "",
    }
}

fn len(args: &[Value], index: usize) -> u64 {
    text(args, index).len() as u64
}

/// How many texts a text or a collection holds, and their bytes.
fn texts(value: Option<&Value>) -> (u64, u64) {
    fn add<'a>(items: impl Iterator<Item = &'a Value>) -> (u64, u64) {
        items.fold((0, 0), |(count, bytes), item| match item {
            Value::String(text) => (count + 1, bytes + text.len() as u64),
            _ => (count + 1, bytes),
        })
    }
    match value {
        Some(Value::String(text)) => (1, text.len() as u64),
        Some(Value::Array(items)) => add(items.iter()),
        Some(Value::Set(items)) => add(items.iter()),
        _ => (0, 0),
    }
}

fn concat(args: &[Value]) -> u64 {
    let (count, bytes) = texts(args.get(1));
    count.saturating_mul(len(args, 0)).saturating_add(bytes)
}

/// What `of`, which is no longer than `size`, becomes when `new` takes the place of `old`.
fn replaced(size: u64, of: &str, old: &str, new: &str) -> u64 {
    let grows_by = (new.len() as u64).saturating_sub(old.len() as u64);
    if grows_by == 0 {
        return size;
    }
    let times = of.matches(old).count() as u64;
    size.saturating_add(times.saturating_mul(grows_by))
}

/// The patterns follow each other, so each may grow what those before it have made.
fn replace_n(args: &[Value]) -> u64 {
    let Some(Value::Object(patterns)) = args.first() else { return 0 };
    let mut size = len(args, 1);
    let mut cost = size;
    for (old, new) in patterns.iter() {
        let (Value::String(old), Value::String(new)) = (old, new) else { continue };
        let times = if old.is_empty() { size.saturating_add(1) } else { size / old.len() as u64 };
        let grows_by = (new.len() as u64).saturating_sub(old.len() as u64);
        size = size.saturating_add(times.saturating_mul(grows_by));
        cost = cost.saturating_add(size);
        if cost > COST_MAX {
            break;
        }
    }
    cost
}

/// Each match may be as short as nothing, and each `$` of the replacement as long as its match.
fn regex_replace(args: &[Value]) -> u64 {
    let (of, with) = (len(args, 0), text(args, 2));
    let groups = with.matches('$').count() as u64;
    of.saturating_mul(groups.saturating_add(1))
        .saturating_add(of.saturating_add(1).saturating_mul(with.len() as u64))
        .saturating_add(patterned(args, 1, 0))
}

/// The text at `of` matched by the pattern at `pattern`: the pattern's states at each character, of
/// which most are not reached.
fn patterned(args: &[Value], pattern: usize, of: usize) -> u64 {
    let (_, delimiters) = texts(args.get(1).filter(|value| !matches!(value, Value::String(_))));
    let length = len(args, of).saturating_add(len(args, pattern));
    (len(args, pattern) / 4).saturating_add(1 + delimiters).saturating_mul(length)
}

/// The array of matches of a `…find…` function.
fn found(args: &[Value]) -> u64 {
    let limit = match args.get(2) {
        Some(Value::Number(limit)) => limit.as_u64().unwrap_or(u64::MAX),
        _ => u64::MAX,
    };
    limit.min(len(args, 1).saturating_add(1)).saturating_mul(PIECE)
}

fn split(args: &[Value]) -> u64 {
    let (of, delimiter) = (text(args, 0), text(args, 1));
    let pieces = if delimiter.is_empty() { of.len() } else { of.matches(delimiter).count() + 1 };
    (pieces as u64).saturating_mul(PIECE).saturating_add(of.len() as u64)
}

/// How many keys an object has, those of the objects in it included.
fn fields(value: &Value) -> u64 {
    match value {
        Value::Object(below) => below.values().map(|value| 1 + fields(value)).sum(),
        _ => 0,
    }
}

/// Each text of one with each of the other.
fn pairs(args: &[Value]) -> u64 {
    let ((these, _), (those, bytes)) = (texts(args.first()), texts(args.get(1)));
    these.saturating_mul(those.saturating_mul(8).saturating_add(bytes))
}

/// Digits are read in quadratic time, and an exponent stands for as many digits as it says.
fn quantity(text: &str) -> u64 {
    let exponents = text.split(['e', 'E']).skip(1).map(|rest| {
        let digits = rest.trim_start_matches(['+', '-']);
        let end = digits.bytes().take_while(u8::is_ascii_digit).count();
        if end == 0 { 0 } else { digits[..end].parse::<u64>().unwrap_or(u64::MAX) }
    });
    let digits = exponents.fold(text.len() as u64, u64::saturating_add);
    digits.saturating_mul(digits) / 4
}

/// Nothing for paths that are short enough, too much for any other.
fn paths(args: &[Value]) -> u64 {
    let is_long = |path: &Value| match path {
        Value::String(path) => path.split('/').count() > PATH_PARTS_MAX,
        Value::Array(parts) => parts.iter().count() > PATH_PARTS_MAX,
        _ => false,
    };
    let has_long = match args.get(1) {
        Some(Value::Array(paths)) => paths.iter().any(is_long),
        Some(Value::Set(paths)) => paths.iter().any(is_long),
        _ => false,
    };
    if has_long { u64::MAX } else { 0 }
}

/// Each value is a bracket or behind a comma.
fn unmarshal(args: &[Value]) -> u64 {
    let json = text(args, 0);
    let values = json.bytes().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count() as u64;
    values.saturating_mul(PIECE).saturating_add(json.len() as u64)
}

/// Each factor is multiplied with the product of those before it, which has their digits together.
fn product(args: &[Value]) -> u64 {
    fn add<'a>(items: impl Iterator<Item = &'a Value>) -> (u64, u64) {
        items.fold((0, 0), |(count, bytes), item| match item {
            Value::Number(number) if number.is_integer() => {
                (count + 1, bytes + if number.as_i64().is_some() { 8 } else { 512 })
            }
            _ => (count + 1, bytes),
        })
    }
    let (count, bytes) = match args.first() {
        Some(Value::Array(items)) => add(items.iter()),
        Some(Value::Set(items)) => add(items.iter()),
        _ => (0, 0),
    };
    count.saturating_mul(bytes) / 2
}

/// An array of each value below `value` with the path to it, `depth` keys long. Ends at `max`, and
/// with the depth that the JSON parser has bounded.
fn walked(value: &Value, depth: u64, max: u64) -> u64 {
    let mut cost = PIECE + SLOT * depth;
    let mut below = |value: &Value| {
        if cost <= max {
            cost = cost.saturating_add(walked(value, depth + 1, max - cost));
        }
    };
    match value {
        Value::Array(items) => items.iter().for_each(&mut below),
        Value::Set(items) => items.iter().for_each(&mut below),
        Value::Object(fields) => fields.values().for_each(&mut below),
        _ => {}
    }
    cost
}

#[cfg(test)]
mod tests;
