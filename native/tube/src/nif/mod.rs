//! The NIF: terms in, one call, terms out. What a call does is decided in `tube_link`.

mod atoms;
mod batch_builder;
mod data;
mod introspect;
mod link;
mod notifier;
mod platform;
pub mod sender_monitor;

use crate::names;
use rustler::{Atom, Encoder, Env, Term};
use tube_link::LinkError;

/// `{:error, reason}`.
fn error_reply<'a>(env: Env<'a>, error: LinkError) -> Term<'a> {
    (atoms::error(), reason(env, error)).encode(env)
}

fn reason(env: Env<'_>, error: LinkError) -> Atom {
    atom(env, names::error(error).to_bytes())
}

/// `{:error, name}`. The names are a fixed set in `tube_platform`, so the atom table cannot fill
/// up.
fn named_error<'a>(env: Env<'a>, name: &str) -> Term<'a> {
    (atoms::error(), atom(env, name.as_bytes())).encode(env)
}

fn atom(env: Env<'_>, name: &[u8]) -> Atom {
    Atom::from_bytes(env, name).unwrap_or_else(|_| atoms::einval())
}
