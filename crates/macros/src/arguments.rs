//! What stands between the parentheses of the attributes.

use syn::parse::{ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Expr, LitInt, LitStr, Path, Result, Token, bracketed, meta};

/// Longest name of a capability, in bytes; the same as in the model's limits, which a macro that
/// everybody builds should not wait for. A name that slips through is refused at start.
const NAME_BYTES_MAX: usize = 128;

/// Most retries of a capability; the same as `RETRIES_MAX` of the crate that we write code for, for
/// the same reason.
const RETRIES_MAX: u32 = 20;

/// `#[agent(…)]`.
pub(crate) struct AgentArguments {
    /// Where `convoke` is.
    pub(crate) root: Path,
}

/// `#[capability(…)]`.
#[derive(Default)]
pub(crate) struct CapabilityArguments {
    pub(crate) name: Option<LitStr>,
    pub(crate) description: Option<LitStr>,
    pub(crate) ephemeral: bool,
    pub(crate) resume: bool,
    pub(crate) retries: Option<LitInt>,
    /// Where it says so, if it does.
    pub(crate) default: Option<Path>,
    /// Patterns of who may call; never empty.
    pub(crate) requires_peer: Option<Vec<LitStr>>,
    pub(crate) tags: Vec<LitStr>,
    pub(crate) input_schema: Option<Expr>,
    pub(crate) output_schema: Option<Expr>,
}

impl AgentArguments {
    pub(crate) fn parse(tokens: proc_macro2::TokenStream) -> Result<Self> {
        let mut root: Path = syn::parse_quote!(::convoke);
        let parser = meta::parser(|argument| {
            if argument.path.is_ident("crate") {
                root = argument.value()?.parse::<LitStr>()?.parse()?;
                return Ok(());
            }
            Err(argument.error("unknown argument; `agent` takes `crate = \"path\"`"))
        });
        parser.parse2(tokens)?;
        Ok(Self { root })
    }
}

impl CapabilityArguments {
    pub(crate) fn parse(attribute: &Attribute) -> Result<Self> {
        let mut arguments = Self::default();
        if matches!(attribute.meta, syn::Meta::Path(_)) {
            return Ok(arguments);
        }
        attribute.parse_nested_meta(|argument| {
            let path = &argument.path;
            if path.is_ident("name") {
                let name: LitStr = argument.value()?.parse()?;
                check_name(&name)?;
                arguments.name = Some(name);
            } else if path.is_ident("description") {
                arguments.description = Some(argument.value()?.parse()?);
            } else if path.is_ident("ephemeral") {
                arguments.ephemeral = true;
            } else if path.is_ident("resume") {
                arguments.resume = true;
            } else if path.is_ident("retries") {
                arguments.retries = Some(retries(argument.value()?)?);
            } else if path.is_ident("default") {
                arguments.default = Some(path.clone());
            } else if path.is_ident("requires_peer") {
                let value = argument.value()?;
                let patterns =
                    if value.peek(LitStr) { vec![value.parse()?] } else { texts(value)? };
                if patterns.is_empty() {
                    return Err(argument
                        .error("nobody could call it; leave `requires_peer` out, or say who may"));
                }
                arguments.requires_peer = Some(patterns);
            } else if path.is_ident("tags") {
                arguments.tags = texts(argument.value()?)?;
            } else if path.is_ident("input_schema") {
                arguments.input_schema = Some(argument.value()?.parse()?);
            } else if path.is_ident("output_schema") {
                arguments.output_schema = Some(argument.value()?.parse()?);
            } else {
                return Err(argument.error(
                    "unknown argument; `capability` takes name, description, ephemeral, resume, \
                     retries, default, requires_peer, tags, input_schema and output_schema",
                ));
            }
            Ok(())
        })?;
        if arguments.ephemeral && (arguments.resume || arguments.retries.is_some()) {
            return Err(Error::new_spanned(
                attribute,
                "`resume` and `retries` are for tasks, and an ephemeral capability makes none; \
                 take `ephemeral` away, or them",
            ));
        }
        Ok(arguments)
    }
}

/// `3`.
fn retries(value: ParseStream<'_>) -> Result<LitInt> {
    let number: LitInt = value.parse()?;
    match number.base10_parse::<u32>() {
        Ok(0..=RETRIES_MAX) => Ok(number),
        _ => Err(Error::new(
            number.span(),
            format!("a failed attempt is made again at most {RETRIES_MAX} times"),
        )),
    }
}

/// `["…", "…"]`.
fn texts(value: ParseStream<'_>) -> Result<Vec<LitStr>> {
    let list;
    bracketed!(list in value);
    Ok(Punctuated::<LitStr, Token![,]>::parse_terminated(&list)?.into_iter().collect())
}

/// The grammar of the model's `CapabilityName`, so that a bad name is found where it is written.
pub(crate) fn check_name(name: &LitStr) -> Result<()> {
    let text = name.value();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(plain)
    {
        return Ok(());
    }
    Err(Error::new(
        name.span(),
        format!(
            "a capability's name begins with a letter and has at most {NAME_BYTES_MAX} letters, \
             digits, `_`, `-` and `.`"
        ),
    ))
}
