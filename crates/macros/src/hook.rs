//! Methods that the node calls when the agent begins, ends, or has a new certificate.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{
    Attribute, Error, FnArg, Ident, ImplItemFn, Path, ReceiverKind, Result, Signature, Type,
};

use crate::method::{Output, last_name, output};

/// A method that is a hook.
pub(crate) struct Hook {
    kind: Kind,
    ident: Ident,
    output: Output,
    /// The method's `#[cfg(…)]`: without the method there is no hook.
    conditions: Vec<Attribute>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Start,
    Stop,
    SvidUpdate,
}

impl Hook {
    /// Takes `function` apart if it is a hook, and takes from it the attribute that says so.
    pub(crate) fn take(function: &mut ImplItemFn) -> Result<Option<Self>> {
        let marks: Vec<_> = function
            .attrs
            .extract_if(.., |attribute| Kind::of(attribute.path()).is_some())
            .collect();
        let Some(mark) = marks.first() else { return Ok(None) };
        if let Some(second) = marks.get(1) {
            return Err(Error::new_spanned(second, "a method is one hook"));
        }
        mark.meta.require_path_only()?;
        if let Some(also) = function.attrs.iter().find(|one| one.path().is_ident("capability")) {
            return Err(Error::new_spanned(also, "a method is a hook or a capability, not both"));
        }
        let Some(kind) = Kind::of(mark.path()) else { return Ok(None) };
        kind.check(&function.sig)?;
        let output = output(&function.sig.output)?;
        if matches!(output, Output::Fallible(_)) && kind != Kind::Start {
            return Err(Error::new_spanned(
                &function.sig.output,
                format!("`{}` has nobody to give an error to; log it", kind.name()),
            ));
        }
        let is_condition = |attribute: &&Attribute| attribute.path().is_ident("cfg");
        let conditions = function.attrs.iter().filter(is_condition).cloned().collect();
        Ok(Some(Self { kind, ident: function.sig.ident.clone(), output, conditions }))
    }

    /// Whether both would be called for the same reason.
    pub(crate) fn check_beside(&self, other: &Self) -> Result<()> {
        if self.kind != other.kind || !self.conditions.is_empty() || !other.conditions.is_empty() {
            return Ok(());
        }
        let text = format!("`{}` is the `{}` hook already", self.ident, self.kind.name());
        Err(Error::new_spanned(&other.ident, text))
    }

    /// The method of the trait that calls this one.
    pub(crate) fn expand(&self, private: &Path) -> TokenStream {
        let Self { kind, ident, output, conditions } = self;
        let agent = quote!(#private::convoke_agent);
        let called = match kind {
            Kind::Start => {
                let body = match output {
                    Output::Fallible(_) => quote! {
                        #agent::Reply::reply(Self::#ident(self, context).await)
                    },
                    Output::Plain(_) => quote! {
                        let () = Self::#ident(self, context).await;
                        ::core::result::Result::Ok(())
                    },
                };
                quote! {
                    async fn on_start(
                        &self,
                        context: &#agent::Context,
                    ) -> ::core::result::Result<(), #agent::HandlerError> {
                        #body
                    }
                }
            }
            Kind::Stop => quote! {
                async fn on_stop(&self) {
                    Self::#ident(self).await
                }
            },
            Kind::SvidUpdate => quote! {
                async fn on_svid_update(&self, not_after: #agent::__private::UnixMillis) {
                    Self::#ident(self, not_after).await
                }
            },
        };
        quote!(#(#conditions)* #called)
    }
}

impl Kind {
    fn of(path: &Path) -> Option<Self> {
        let all = [Self::Start, Self::Stop, Self::SvidUpdate];
        all.into_iter().find(|kind| path.is_ident(kind.name()))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Start => "on_start",
            Self::Stop => "on_stop",
            Self::SvidUpdate => "on_svid_update",
        }
    }

    /// The one signature that a hook of this kind has.
    fn check(self, signature: &Signature) -> Result<()> {
        let by_reference =
            |kind: &ReceiverKind| matches!(kind, ReceiverKind::Reference(_, _, None));
        let has_self = signature.receiver().is_some_and(|it| by_reference(&it.kind));
        let types: Vec<_> = signature
            .inputs
            .iter()
            .filter_map(|input| match input {
                FnArg::Typed(input) => Some(&*input.ty),
                FnArg::Receiver(_) => None,
            })
            .collect();
        let is_context = |ty: &Type| match ty {
            Type::Reference(ty) => {
                ty.mutability.is_none() && last_name(&ty.elem).is_some_and(|it| it == "Context")
            }
            _ => false,
        };
        let fits = match (self, types.as_slice()) {
            (Self::Start, [ty]) => is_context(ty),
            (Self::Stop, []) => true,
            (Self::SvidUpdate, [ty]) => last_name(ty).is_some_and(|it| it == "UnixMillis"),
            _ => false,
        };
        if signature.asyncness.is_some() && signature.generics.params.is_empty() && has_self && fits
        {
            return Ok(());
        }
        let wanted = match self {
            Self::Start => {
                "async fn on_start(&self, context: &Context) -> Result<(), HandlerError>"
            }
            Self::Stop => "async fn on_stop(&self)",
            Self::SvidUpdate => "async fn on_svid_update(&self, not_after: UnixMillis)",
        };
        Err(Error::new_spanned(
            signature,
            format!("`{}` stands on a method such as `{wanted}`", self.name()),
        ))
    }
}
