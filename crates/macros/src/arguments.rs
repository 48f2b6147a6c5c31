//! What stands between the parentheses of the attributes.

use syn::parse::{ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Expr, LitStr, Path, Result, Token, bracketed, meta};

/// Longest name of a capability, in bytes; the same as in the model's limits, which a macro that
/// everybody builds should not wait for. A name that slips through is refused at start.
const NAME_BYTES_MAX: usize = 128;

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
                    "unknown argument; `capability` takes name, description, ephemeral, default, \
                     requires_peer, tags, input_schema and output_schema",
                ));
            }
            Ok(())
        })?;
        Ok(arguments)
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
