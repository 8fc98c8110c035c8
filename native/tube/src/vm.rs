//! The Erlang VM, as `tube_link` sees it.

use crate::buffer::Buffer;
use crate::pid::Pid;
use tube_link::Vm;

/// The Erlang VM.
pub struct Beam;

impl Vm for Beam {
    type Process = Pid;
    type Buffer = Buffer;
}
