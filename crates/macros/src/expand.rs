//! From an `impl` block to an agent.

use std::collections::HashMap;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ImplItem, ItemImpl, LitStr, Path, Result, Type};

use crate::arguments::AgentArguments;
use crate::hook::Hook;
use crate::method::{Method, Output};

/// The `impl` block without our attributes, and the implementation of `Agent` beside it.
///
/// # Errors
///
/// Everything that is wrong with the block, each where it is written.
pub(crate) fn agent(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let AgentArguments { root } = AgentArguments::parse(arguments)?;
    let mut block: ItemImpl = syn::parse2(item)?;
    if let Some((path, _)) = &block.trait_ {
        return Err(Error::new_spanned(
            path,
            "`agent` stands on the impl block of the struct itself, not of a trait",
        ));
    }
    if !block.generics.params.is_empty() {
        return Err(Error::new_spanned(&block.generics, "an agent cannot be generic"));
    }
    let (methods, hooks) = methods(&mut block)?;
    check_together(&block, &methods, &hooks)?;

    let private: Path = syn::parse_quote!(#root::__private);
    let this = &block.self_ty;
    let capabilities = methods.iter().map(|method| capability(method, &private, this));
    let hooks = hooks.iter().map(|hook| hook.expand(&private));
    Ok(quote! {
        #block

        #[automatically_derived]
        impl #private::convoke_agent::Agent for #this {
            #[allow(clippy::vec_init_then_push)]
            fn capabilities() -> ::std::vec::Vec<#private::convoke_agent::Capability<Self>> {
                let mut capabilities = ::std::vec::Vec::new();
                #(#capabilities)*
                capabilities
            }

            #(#hooks)*
        }
    })
}

fn methods(block: &mut ItemImpl) -> Result<(Vec<Method>, Vec<Hook>)> {
    let (mut methods, mut hooks) = (Vec::new(), Vec::new());
    let mut wrong: Option<Error> = None;
    for item in &mut block.items {
        let ImplItem::Fn(function) = item else { continue };
        let taken = Hook::take(function).and_then(|hook| {
            hooks.extend(hook);
            methods.extend(Method::take(function)?);
            Ok(())
        });
        match taken {
            Ok(()) => {}
            Err(error) => match &mut wrong {
                Some(first) => first.combine(error),
                None => wrong = Some(error),
            },
        }
    }
    wrong.map_or(Ok((methods, hooks)), Err)
}

/// What is wrong with capabilities only beside each other.
fn check_together(block: &ItemImpl, methods: &[Method], hooks: &[Hook]) -> Result<()> {
    if methods.is_empty() {
        return Err(Error::new_spanned(
            &block.self_ty,
            "an agent has at least one method with `#[capability]`",
        ));
    }
    for (n, hook) in hooks.iter().enumerate() {
        hooks[..n].iter().try_for_each(|earlier| earlier.check_beside(hook))?;
    }
    let mut names = HashMap::new();
    let mut default: Option<&Method> = None;
    for method in methods.iter().filter(|method| method.conditions.is_empty()) {
        if names.insert(method.name.value(), method).is_some() {
            return Err(Error::new(
                method.name.span(),
                format!("two capabilities are called `{}`", method.name.value()),
            ));
        }
        if let Some(mark) = &method.arguments.default
            && let Some(first) = default.replace(method)
        {
            return Err(Error::new_spanned(
                mark,
                format!("`{}` is the default capability already", first.name.value()),
            ));
        }
    }
    Ok(())
}

/// One statement that adds a capability to the list.
fn capability(method: &Method, private: &Path, this: &Type) -> TokenStream {
    let Method { ident, name, description, arguments, parameters, output, conditions } = method;
    let agent = quote!(#private::convoke_agent);
    let serde = path_text(private, "serde");
    let schemars = path_text(private, "schemars");

    let (derived, input) = match &arguments.input_schema {
        Some(given) => (None, quote!(#given)),
        None => (
            Some(quote! {
                #[derive(#private::schemars::JsonSchema)]
                #[schemars(crate = #schemars)]
            }),
            quote!(#agent::input_schema_of::<__Parameters>),
        ),
    };
    let (result, output_type) = match output {
        Output::Fallible(ty) => {
            (quote!(#agent::Reply::reply(result)?), quote!(<#ty as #agent::Reply>::Output))
        }
        Output::Plain(ty) => (quote!(result), quote!(#ty)),
    };
    let output = match &arguments.output_schema {
        Some(given) => quote!(#given),
        None => quote!(#agent::output_schema_of::<#output_type>),
    };
    let tags = &arguments.tags;
    let guard = arguments.requires_peer.as_ref().map(|peers| quote!(.requires_peer([#(#peers),*])));
    let ephemeral = arguments.ephemeral.then(|| quote!(.ephemeral()));
    let resume = arguments.resume.then(|| quote!(.resume()));
    let retries = arguments.retries.as_ref().map(|retries| quote!(.retries(#retries)));
    let default = arguments.default.is_some().then(|| quote!(.default()));
    let (names, types): (Vec<_>, Vec<_>) =
        parameters.iter().map(|parameter| (&parameter.ident, &parameter.ty)).unzip();
    let attributes = parameters.iter().map(|parameter| {
        let attributes = &parameter.attributes;
        quote!(#(#attributes)*)
    });

    quote! {
        #(#conditions)*
        capabilities.push({
            #[derive(#private::serde::Deserialize)]
            #[serde(crate = #serde)]
            #derived
            struct __Parameters {
                #(#attributes #names: #types,)*
            }

            #agent::Capability::<#this>::new(#name, #input, |agent, context, parameters| {
                ::std::boxed::Box::pin(async move {
                    let parameters: __Parameters = #agent::decode(&parameters)?;
                    let result = agent.#ident(&context, #(parameters.#names),*).await;
                    #agent::encode(&#result)
                })
            })
            .description(#description)
            .output(#output)
            .tags([#(#tags),*])
            #ephemeral
            #resume
            #retries
            #default
            #guard
        });
    }
}

/// A path as the derives want it: in quotes, where it is written.
fn path_text(private: &Path, name: &str) -> LitStr {
    let path = quote!(#private).to_string().replace(' ', "");
    LitStr::new(&format!("{path}::{name}"), proc_macro2::Span::call_site())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(item: TokenStream, expected: &[&str]) {
        let error = agent(TokenStream::new(), item).expect_err("should be refused");
        let found: Vec<_> = error.into_iter().map(|error| error.to_string()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_no_capability_can_be_is_refused_with_its_cure() {
        check(
            quote! { impl A { async fn f(&self, context: &Context) {} } },
            &["an agent has at least one method with `#[capability]`"],
        );
        check(
            quote! { impl A {
                /// Doc
                #[capability] fn f(&self, context: &Context) {}
                /// Doc
                #[capability] async fn g<T>(&self, context: &Context, t: T) {}
                /// Doc
                #[capability] async fn h(&mut self, context: &Context) {}
                /// Doc
                #[capability] async fn i(&self, text: String) {}
                /// Doc
                #[capability] async fn j(&self) {}
            } },
            &[
                "a capability is an `async fn`",
                "a capability cannot be generic: callers send JSON, not types",
                "a capability's first parameter is `&self`: many calls run at once",
                "a capability's second parameter is `context: &Context`, also if it is not used",
                "a capability's second parameter is `context: &Context`, also if it is not used",
            ],
        );
        check(
            quote! { impl A {
                /// Doc
                #[capability] async fn f(&self, _: &Context, (a, b): (u8, u8)) {}
                /// Doc
                #[capability] async fn g(&self, _: &Context, text: &str) {}
                /// Doc
                #[capability] async fn h(&self, _: &Context, text: impl Into<String>) {}
                /// Doc
                #[capability] async fn i(&self, _: &Context) -> impl Serialize {}
                #[capability] async fn j(&self, _: &Context) {}
                /// Doc
                #[capability] #[capability] async fn k(&self, _: &Context) {}
            } },
            &[
                "a capability's parameter has a name: it is that of the property callers send",
                "a capability owns its parameters: `String` instead of `&str`, `Vec<T>` instead \
                 of `&[T]`",
                "a capability cannot be generic: callers send JSON, not types",
                "a capability names the type it returns: the output schema follows from it",
                "a capability needs a description: write a doc comment, or `description = \"…\"`",
                "a method is one capability",
            ],
        );
    }

    #[test]
    fn hooks_have_one_shape_each() {
        let start = "`on_start` stands on a method such as `async fn on_start(&self, context: \
                     &Context) -> Result<(), HandlerError>`";
        check(
            quote! { impl A {
                /// Doc
                #[capability] async fn f(&self, _: &Context) {}
                #[on_start] async fn a(&self) {}
                #[on_start] fn b(&self, _: &Context) {}
                #[on_stop] async fn c(&self, _: &Context) {}
                #[on_svid_update] async fn d(&mut self, not_after: UnixMillis) {}
                #[on_stop] async fn e(&self) -> Result<(), E> {}
                #[on_stop] #[on_start] async fn g(&self) {}
                #[on_stop] #[capability] async fn h(&self) {}
                #[on_stop(late)] async fn i(&self) {}
            } },
            &[
                start,
                start,
                "`on_stop` stands on a method such as `async fn on_stop(&self)`",
                "`on_svid_update` stands on a method such as `async fn on_svid_update(&self, \
                 not_after: UnixMillis)`",
                "`on_stop` has nobody to give an error to; log it",
                "a method is one hook",
                "a method is a hook or a capability, not both",
                "unexpected token in attribute",
            ],
        );
        check(
            quote! { impl A {
                /// Doc
                #[capability] async fn f(&self, _: &Context) {}
                #[on_stop] async fn a(&self) {}
                #[on_stop] async fn b(&self) {}
            } },
            &["`a` is the `on_stop` hook already"],
        );
    }

    #[test]
    fn arguments_are_checked() {
        let unknown = "unknown argument; `capability` takes name, description, ephemeral, resume, \
                       retries, default, requires_peer, tags, input_schema and output_schema";
        let of_tasks = "`resume` and `retries` are for tasks, and an ephemeral capability makes \
                        none; take `ephemeral` away, or them";
        let name = "a capability's name begins with a letter and has at most 128 letters, digits, \
                    `_`, `-` and `.`";
        check(
            quote! { impl A {
                /// Doc
                #[capability(quick)] async fn f(&self, _: &Context) {}
                /// Doc
                #[capability(name = "a b")] async fn g(&self, _: &Context) {}
                /// Doc
                #[capability] async fn _h(&self, _: &Context) {}
                /// Doc
                #[capability(requires_peer = [])] async fn i(&self, _: &Context) {}
                /// Doc
                #[capability(ephemeral, resume)] async fn j(&self, _: &Context) {}
                /// Doc
                #[capability(retries = 1, ephemeral)] async fn k(&self, _: &Context) {}
                /// Doc
                #[capability(retries = 21)] async fn l(&self, _: &Context) {}
                /// Doc
                #[capability(retries = "1")] async fn m(&self, _: &Context) {}
            } },
            &[
                unknown,
                name,
                name,
                "nobody could call it; leave `requires_peer` out, or say who may",
                of_tasks,
                of_tasks,
                "a failed attempt is made again at most 20 times",
                "expected integer literal",
            ],
        );
        let error = agent(quote!(name = "x"), quote!(impl A {})).unwrap_err();
        assert_eq!(error.to_string(), "unknown argument; `agent` takes `crate = \"path\"`");
    }

    #[test]
    fn capabilities_are_checked_against_each_other() {
        check(
            quote! { impl A {
                /// Doc
                #[capability(name = "g")] async fn f(&self, _: &Context) {}
                /// Doc
                #[capability] async fn g(&self, _: &Context) {}
            } },
            &["two capabilities are called `g`"],
        );
        check(
            quote! { impl A {
                /// Doc
                #[capability(default)] async fn f(&self, _: &Context) {}
                /// Doc
                #[capability(default)] async fn g(&self, _: &Context) {}
            } },
            &["`f` is the default capability already"],
        );
    }

    #[test]
    fn only_the_struct_itself_is_an_agent() {
        check(
            quote! { impl Clone for A {} },
            &["`agent` stands on the impl block of the struct itself, not of a trait"],
        );
        check(quote! { impl<T> A<T> {} }, &["an agent cannot be generic"]);
        check(quote! { struct A; }, &["expected `impl`"]);
    }
}
