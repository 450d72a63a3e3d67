//! The attributes of `txconnect-transform`; it says what they do.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{FnArg, Ident, ItemFn, ItemStruct, PatType, Token, Type};

/// Makes a function the transform of its crate.
#[proc_macro_attribute]
pub fn transform(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function = item.clone();
    match expand(arguments.into(), item) {
        Ok(tokens) => tokens.into(),
        Err(mistake) => {
            // The function stays, so that the compiler complains of nothing else.
            let mistake = mistake.to_compile_error();
            let function = Tokens::from(function);
            quote!(#mistake #function).into()
        }
    }
}

/// Makes a struct the config of a transform.
#[proc_macro_attribute]
pub fn config(arguments: TokenStream, item: TokenStream) -> TokenStream {
    if !arguments.is_empty() {
        let mistake = syn::Error::new_spanned(Tokens::from(arguments), "`config` takes no arguments");
        return mistake.to_compile_error().into();
    }
    let item = syn::parse_macro_input!(item as ItemStruct);
    quote! {
        #[derive(::txconnect_transform::serde::Deserialize, ::txconnect_transform::schemars::JsonSchema)]
        #[serde(crate = "::txconnect_transform::serde", deny_unknown_fields)]
        #[schemars(crate = "::txconnect_transform::schemars")]
        #item
    }
    .into()
}

fn expand(arguments: Tokens, item: TokenStream) -> syn::Result<Tokens> {
    let function: ItemFn = syn::parse(item)?;
    let wants = Punctuated::<Ident, Token![,]>::parse_terminated.parse2(arguments)?;
    let (mut keys, mut headers, mut positions, mut tombstones) = (false, false, false, false);
    for want in &wants {
        match want.to_string().as_str() {
            "keys" => keys = true,
            "headers" => headers = true,
            "positions" => positions = true,
            "tombstones" => tombstones = true,
            _ => {
                let message = "a transform may want `keys`, `headers`, `positions`, `tombstones`";
                return Err(syn::Error::new_spanned(want, message));
            }
        }
    }
    let name = &function.sig.ident;
    let config = match function.sig.inputs.iter().collect::<Vec<_>>().as_slice() {
        [FnArg::Typed(_)] => None,
        [FnArg::Typed(_), FnArg::Typed(PatType { ty, .. })] => match &**ty {
            Type::Reference(reference) => Some(&*reference.elem),
            other => {
                return Err(syn::Error::new_spanned(other, "the config is lent: write `&` before its type"));
            }
        },
        _ => {
            let message =
                "a transform takes a record, and perhaps its config: `(record: Record, config: &Config)`";
            return Err(syn::Error::new_spanned(&function.sig, message));
        }
    };
    let (config, argument) = match config {
        Some(config) => (quote!(#config), quote!(, config)),
        None => (quote!(::txconnect_transform::NoConfig), quote!()),
    };
    Ok(quote! {
        #function

        const _: () = {
            struct Function;

            impl ::txconnect_transform::Function for Function {
                type Config = #config;
                const NAME: &'static str = env!("CARGO_PKG_NAME");
                const VERSION: &'static str = env!("CARGO_PKG_VERSION");
                const WANTS: ::txconnect_transform::Wants = ::txconnect_transform::Wants {
                    keys: #keys, headers: #headers, positions: #positions, tombstones: #tombstones,
                };

                #[allow(unused_variables)]
                fn call(
                    record: ::txconnect_transform::Record,
                    config: &Self::Config,
                    rows: &mut ::txconnect_transform::RowsOfRecord<'_>,
                ) -> ::txconnect_transform::Result<()> {
                    let record = ::txconnect_transform::FromRecord::from_record(record)?;
                    ::txconnect_transform::IntoRows::into_rows(#name(record #argument), rows)
                }
            }

            ::txconnect_transform::export!(::txconnect_transform::Each<Function>);
        };
    })
}
