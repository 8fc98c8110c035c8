//! The library that the VM loads twice: as the NIF of `Tube.Native` and as the driver `tube`. It
//! connects `tube_link` and `tube_platform` to the VM, and has no logic of its own.

mod buffer;
mod driver;
mod handles;
mod limits;
mod names;
mod nif;
mod pid;
mod slab;
mod sys;
mod vm;

rustler::init!("Elixir.Tube.Native");

/// The Erlang VM, as `tube_link` sees it.
struct Beam;

impl tube_link::Vm for Beam {
    type Process = pid::Pid;
    type Buffer = buffer::Buffer;
}
