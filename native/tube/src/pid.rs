//! A local process, as NIF and driver both know it.

use crate::sys;
use rustler::sys::ErlNifPid;
use rustler::{Env, LocalPid};

/// A local process.
///
/// NIFs know processes as `ErlNifPid`, drivers as `ErlDrvTermData`; both are the one word that the VM
/// itself uses. No header promises that, so the driver compares the two views of its owner before
/// it lets data flow (`link_start`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid(usize);

impl Pid {
    /// The calling process of a NIF.
    pub fn caller(env: Env<'_>) -> Pid {
        Pid::from_nif(env.pid())
    }

    /// As a NIF was given it.
    pub fn from_nif(pid: LocalPid) -> Pid {
        // SAFETY: erl_nif.h defines `ErlNifPid` as a structure of this one word. The size is checked by the
        // compiler.
        Pid(unsafe { std::mem::transmute::<ErlNifPid, usize>(*pid.as_c_arg()) })
    }

    /// As a driver was given it.
    pub fn from_word(word: sys::Word) -> Pid {
        Pid(word)
    }

    /// For a NIF.
    pub fn nif(self) -> LocalPid {
        // SAFETY: as above, and the word came from the VM as a local pid.
        LocalPid::from_c_arg(unsafe { std::mem::transmute::<usize, ErlNifPid>(self.0) })
    }

    /// For a driver.
    pub fn word(self) -> sys::Word {
        self.0
    }
}
