//! The library that the VM loads twice: as the NIF of `Tube.Native` and as the driver `tube`. It wires
//! `tube_link` and `tube_platform` to the VM and decides nothing itself.

mod build_id;
mod catch_panic;
mod driver;
mod handles;
mod nif;
mod process;
mod slab;

rustler::init!("Elixir.Tube.Native");
