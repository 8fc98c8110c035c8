//! A process, for both NIF and driver.

use crate::sys;
use rustler::sys::ErlNifPid;
use rustler::{Env, LocalPid};

/// A local process.
///
/// A NIF has an `ErlNifPid`, a driver an `ErlDrvTermData`. Both are the one word that the VM itself
/// uses. No header promises that, so the driver compares both for its owner before data flows
/// (`LinkPort::start`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid(usize);

impl Pid {
    /// The calling process of a NIF.
    pub fn caller(env: Env<'_>) -> Pid {
        Pid::from_nif(env.pid())
    }

    /// From the pid of a NIF.
    pub fn from_nif(pid: LocalPid) -> Pid {
        // SAFETY: erl_nif.h defines `ErlNifPid` as a structure of this one word. The compiler
        // checks the size.
        Pid(unsafe { std::mem::transmute::<ErlNifPid, usize>(*pid.as_c_arg()) })
    }

    /// From the term of a driver.
    pub fn from_word(word: sys::Word) -> Pid {
        Pid(word)
    }

    /// The pid for a NIF.
    pub fn nif(self) -> LocalPid {
        // SAFETY: as above, and the word came from the VM as a local pid.
        LocalPid::from_c_arg(unsafe { std::mem::transmute::<usize, ErlNifPid>(self.0) })
    }

    /// The term for a driver.
    pub fn word(self) -> sys::Word {
        self.0
    }
}
