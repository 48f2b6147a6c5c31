//! One method that is a capability, taken apart.

use quote::ToTokens;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, FnArg, Ident, ImplItemFn, LitStr, Meta, Pat, ReceiverKind, Result,
    ReturnType, Signature, Type,
};

use crate::arguments::{CapabilityArguments, check_name};

/// A method that is a capability.
pub(crate) struct Method {
    pub(crate) ident: Ident,
    /// The capability's name, by default the method's.
    pub(crate) name: LitStr,
    pub(crate) description: String,
    pub(crate) arguments: CapabilityArguments,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) output: Output,
    /// The method's `#[cfg(…)]`: without the method there is no capability.
    pub(crate) conditions: Vec<Attribute>,
}

/// A parameter of a capability: a property of the object that callers send.
pub(crate) struct Parameter {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    /// Documentation, `#[serde(…)]` and `#[schemars(…)]`.
    pub(crate) attributes: Vec<Attribute>,
}

/// What a capability returns.
pub(crate) enum Output {
    /// A result, possibly an error.
    Fallible(Type),
    /// A result, always.
    Plain(Type),
}

impl Method {
    /// Takes `function` apart if it is a capability, and takes from it the attributes that only a
    /// capability has.
    pub(crate) fn take(function: &mut ImplItemFn) -> Result<Option<Self>> {
        let marked = |attribute: &Attribute| attribute.path().is_ident("capability");
        let mut marks = function.attrs.extract_if(.., |attribute| marked(attribute));
        let Some(mark) = marks.next() else { return Ok(None) };
        if let Some(second) = marks.next() {
            return Err(Error::new_spanned(second, "a method is one capability"));
        }
        drop(marks);
        let arguments = CapabilityArguments::parse(&mark)?;

        check_signature(&function.sig)?;
        let parameters = parameters(&mut function.sig)?;
        let ident = function.sig.ident.clone();
        let name = match &arguments.name {
            Some(name) => name.clone(),
            None => LitStr::new(&ident.unraw().to_string(), ident.span()),
        };
        check_name(&name)?;
        let description = match &arguments.description {
            Some(description) => description.value(),
            None => first_paragraph(&function.attrs),
        };
        if description.trim().is_empty() {
            return Err(Error::new_spanned(
                &ident,
                "a capability needs a description: write a doc comment, or `description = \"…\"`",
            ));
        }
        let is_condition = |attribute: &&Attribute| attribute.path().is_ident("cfg");
        let conditions = function.attrs.iter().filter(is_condition).cloned().collect();
        let output = output(&function.sig.output)?;
        Ok(Some(Self { ident, name, description, arguments, parameters, output, conditions }))
    }
}

fn check_signature(signature: &Signature) -> Result<()> {
    if signature.asyncness.is_none() {
        return Err(Error::new_spanned(signature.fn_token, "a capability is an `async fn`"));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &signature.generics,
            "a capability cannot be generic: callers send JSON, not types",
        ));
    }
    let by_reference = |kind: &ReceiverKind| matches!(kind, ReceiverKind::Reference(_, _, None));
    if !signature.receiver().is_some_and(|receiver| by_reference(&receiver.kind)) {
        let at = signature
            .inputs
            .first()
            .map_or_else(|| signature.ident.to_token_stream(), ToTokens::to_token_stream);
        return Err(Error::new_spanned(
            at,
            "a capability's first parameter is `&self`: many calls run at once",
        ));
    }
    let is_context = |input: &FnArg| match input {
        FnArg::Typed(input) => matches!(
            &*input.ty,
            Type::Reference(reference) if reference.mutability.is_none()
                && last_name(&reference.elem).is_some_and(|name| name == "Context")
        ),
        FnArg::Receiver(_) => false,
    };
    match signature.inputs.iter().nth(1) {
        Some(input) if is_context(input) => Ok(()),
        second => {
            let at =
                second.map_or_else(|| signature.ident.to_token_stream(), ToTokens::to_token_stream);
            Err(Error::new_spanned(
                at,
                "a capability's second parameter is `context: &Context`, also if it is not used",
            ))
        }
    }
}

/// The parameters after the context; what only a field may carry is moved away from them.
fn parameters(signature: &mut Signature) -> Result<Vec<Parameter>> {
    let mut parameters = Vec::new();
    for input in signature.inputs.iter_mut().skip(2) {
        let FnArg::Typed(input) = input else { continue };
        let Pat::Ident(name) = &*input.pat else {
            return Err(Error::new_spanned(
                &input.pat,
                "a capability's parameter has a name: it is that of the property callers send",
            ));
        };
        if let Some((at, _)) = &name.subpat {
            return Err(Error::new_spanned(at, "a capability's parameter is only a name"));
        }
        if let Type::Reference(reference) = &*input.ty {
            return Err(Error::new_spanned(
                reference,
                "a capability owns its parameters: `String` instead of `&str`, `Vec<T>` instead of \
                 `&[T]`",
            ));
        }
        if let Type::ImplTrait(ty) = &*input.ty {
            return Err(Error::new_spanned(
                ty,
                "a capability cannot be generic: callers send JSON, not types",
            ));
        }
        let ident = name.ident.clone();
        let ty = (*input.ty).clone();
        let of_a_field = |attribute: &mut Attribute| {
            ["doc", "serde", "schemars"].iter().any(|name| attribute.path().is_ident(name))
        };
        let attributes = input.attrs.extract_if(.., of_a_field).collect();
        parameters.push(Parameter { ident, ty, attributes });
    }
    Ok(parameters)
}

pub(crate) fn output(output: &ReturnType) -> Result<Output> {
    let ty = match output {
        ReturnType::Default => return Ok(Output::Plain(syn::parse_quote!(()))),
        ReturnType::Type(_, ty) => &**ty,
    };
    match ty {
        Type::ImplTrait(ty) => Err(Error::new(
            ty.span(),
            "a capability names the type it returns: the output schema follows from it",
        )),
        ty if last_name(ty).is_some_and(|name| name == "Result") => {
            Ok(Output::Fallible(ty.clone()))
        }
        ty => Ok(Output::Plain(ty.clone())),
    }
}

/// `Context` of `convoke::Context`.
pub(crate) fn last_name(ty: &Type) -> Option<&Ident> {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|segment| &segment.ident),
        _ => None,
    }
}

/// The first paragraph of a doc comment, on one line.
fn first_paragraph(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                syn::Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    // A block comment is one attribute of many lines.
    let text = lines.collect::<Vec<_>>().join("\n");
    let paragraph = text.lines().map(str::trim).skip_while(|line| line.is_empty());
    paragraph.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
