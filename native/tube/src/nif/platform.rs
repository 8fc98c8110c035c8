//! Attaching to a platform, and opening its byte streams.

use super::{atoms, named_error};
use crate::handles;
use rustler::{Atom, Binary, Encoder, Env, NifResult, Resource, ResourceArc, Term};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tube_platform::local::Local;
use tube_platform::xen::{self, Xen};
use tube_platform::{DOMID_MAX, Domid, Errno, Error, Platform};

/// A platform as an Erlang term. Empty once detached.
pub struct Attached(Mutex<Option<Arc<dyn Platform>>>);

#[rustler::resource_impl]
impl Resource for Attached {}

impl Attached {
    /// The platform, unless detached.
    pub fn get(&self) -> Result<Arc<dyn Platform>, Error> {
        let platform = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        platform
            .clone()
            .ok_or_else(|| Error::posix(Errno::NOTCONN, "detached"))
    }
}

#[rustler::nif(schedule = "DirtyIo")]
fn attach<'a>(
    env: Env<'a>,
    kind: Atom,
    run_directory: Binary<'a>,
    domid: i64,
) -> NifResult<Term<'a>> {
    let domid = match domid {
        -1 => None,
        0.. if domid <= DOMID_MAX.into() => Some(domid as u16),
        _ => return Err(rustler::Error::BadArg),
    };
    let attached = if kind == atoms::local() {
        let run_directory = Path::new(OsStr::from_bytes(&run_directory));
        Local::attach(run_directory, domid)
            .map(|local| Arc::new(local) as Arc<dyn Platform>)
            .map_err(|error| (error.atom(), error.what))
    } else if kind == atoms::xen() {
        attach_xen(domid)
    } else {
        return Err(rustler::Error::BadArg);
    };
    Ok(match attached {
        Ok(platform) => {
            let domid = platform.domid();
            let platform = ResourceArc::new(Attached(Mutex::new(Some(platform))));
            (atoms::ok(), platform, domid).encode(env)
        }
        Err((name, what)) => {
            let reason = Atom::from_str(env, name)?;
            (atoms::error(), (reason, what)).encode(env)
        }
    })
}

/// On Xen the hypervisor sets the domid: `requested` can only confirm it.
fn attach_xen(requested: Option<Domid>) -> Result<Arc<dyn Platform>, (&'static str, String)> {
    let xen = Xen::attach().map_err(|error| (error.atom(), error.to_string()))?;
    match requested {
        Some(requested) if requested != xen.domid() => Err((
            "einval",
            format!("this is Xen's domain {}, not {requested}", xen.domid()),
        )),
        _ => Ok(Arc::new(xen)),
    }
}

/// What this machine lacks to be a Xen domain with tubes: `[{name, text}]`.
#[rustler::nif(schedule = "DirtyIo")]
fn xen_missing(env: Env<'_>) -> NifResult<Vec<(Atom, String)>> {
    xen::missing()
        .into_iter()
        .map(|missing| Ok((Atom::from_str(env, missing.word)?, missing.what)))
        .collect()
}

#[rustler::nif(schedule = "DirtyIo")]
fn detach(platform: ResourceArc<Attached>) -> Atom {
    let ended = platform
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    drop(ended);
    atoms::ok()
}

#[rustler::nif(schedule = "DirtyIo")]
fn xenbus<'a>(env: Env<'a>, platform: ResourceArc<Attached>) -> Term<'a> {
    stream(env, platform.get().and_then(|platform| platform.xenbus()))
}

#[rustler::nif(schedule = "DirtyIo")]
fn life<'a>(env: Env<'a>, platform: ResourceArc<Attached>) -> Term<'a> {
    stream(env, platform.get().and_then(|platform| platform.life()))
}

#[rustler::nif(schedule = "DirtyIo")]
fn stream_free(id: u64) -> Atom {
    drop(handles::take_stream(id));
    atoms::ok()
}

fn stream<'a>(env: Env<'a>, opened: Result<OwnedFd, Error>) -> Term<'a> {
    match opened.map(handles::insert_stream) {
        Ok(Some(id)) => (atoms::ok(), id).encode(env),
        Ok(None) => (atoms::error(), atoms::enospc()).encode(env),
        Err(error) => named_error(env, error.atom()),
    }
}
