//! The driver: the callbacks of the linked-in driver `tube`, and its two kinds of port. `open_port`
//! takes the command `tube link <id> <build id>` or `tube stream <id> <build id>`.

mod delivery;
mod dist;
mod fragments;
mod iovec;
mod link;
mod operation;
mod selected_fd;
mod stream;
mod term;

use crate::sys;
use crate::vm::{self, catch_panic};
use link::LinkPort;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::Once;
use stream::StreamPort;

/// What the VM is to do with a port after a callback. It is done when nothing of the port is
/// borrowed any more, because the VM may call `stop` from within.
pub enum PortAction {
    /// Keep it open.
    Continue,
    /// Exit with reason `normal`.
    EndOfFile,
    /// Exit with the name of this error number.
    Errno(c_int),
    /// Exit with this atom.
    Exit(&'static CStr),
}

/// One open port: the VM passes it to every callback.
struct Instance {
    port: sys::Port,
    kind: Kind,
}

// One per port, in its box, and most ports are those of links.
#[allow(clippy::large_enum_variant)]
enum Kind {
    Link(LinkPort),
    Stream(StreamPort),
}

/// Called by the VM when it loads this library as a driver.
#[unsafe(no_mangle)]
pub extern "C" fn driver_init() -> *mut sys::DriverEntry {
    let (major_version, minor_version) = sys::EXTENDED_VERSION;
    // Leaked on purpose: the VM keeps it and writes to it.
    Box::into_raw(Box::new(sys::DriverEntry {
        init: None,
        start: Some(start),
        stop: Some(stop),
        output: None,
        ready_input: Some(ready_input),
        ready_output: Some(ready_output),
        driver_name: c"tube".as_ptr(),
        finish: None,
        handle: ptr::null_mut(),
        control: Some(control),
        timeout: Some(timeout),
        outputv: Some(outputv),
        ready_async: None,
        flush: Some(flush),
        call: None,
        unused_event_callback: None,
        extended_marker: sys::EXTENDED_MARKER,
        major_version,
        minor_version,
        driver_flags: sys::FLAG_USE_PORT_LOCKING | sys::FLAG_SOFT_BUSY,
        handle2: ptr::null_mut(),
        process_exit: None,
        stop_select: Some(stop_select),
        emergency_close: None,
    }))
}

unsafe extern "C" fn start(port: sys::Port, command: *mut c_char) -> sys::Data {
    static LOCK: Once = Once::new();
    let started = catch_panic(|| {
        // Without this the VM unloads the driver, and kills its ports, when the process that loaded
        // it dies.
        // SAFETY: in a callback of this port.
        LOCK.call_once(|| _ = unsafe { sys::driver_lock_driver(port) });
        // SAFETY: the VM gives a string that ends in a zero byte.
        let command = unsafe { CStr::from_ptr(command) }.to_str().ok()?;
        let ["tube", kind, id, build_id] = command.split(' ').collect::<Vec<_>>()[..] else {
            return None;
        };
        if build_id != vm::build_id() {
            return None;
        }
        let id = id.parse().ok()?;
        let kind = match kind {
            "link" => Kind::Link(LinkPort::open(port, id)?),
            // SAFETY: this is the `start` of that port, and `stop` drops it.
            "stream" => Kind::Stream(unsafe { StreamPort::open(port, id)? }),
            _ => return None,
        };
        Some(Box::into_raw(Box::new(Instance { port, kind })).cast())
    });
    match started {
        Some(Some(data)) => data,
        Some(None) => sys::ERROR_BADARG,
        None => sys::ERROR_GENERAL,
    }
}

unsafe extern "C" fn stop(data: sys::Data) {
    // SAFETY: made by `start`, and this is the last callback of the port.
    catch_panic(|| drop(unsafe { Box::from_raw(data.cast::<Instance>()) }));
}

unsafe extern "C" fn ready_input(data: sys::Data, _event: sys::Event) {
    // SAFETY: a callback of the port whose data this is.
    unsafe {
        with(data, |kind| match kind {
            Kind::Link(link) => link.ready_input(),
            Kind::Stream(stream) => stream.ready_input(),
        });
    }
}

unsafe extern "C" fn ready_output(data: sys::Data, _event: sys::Event) {
    // SAFETY: as above.
    unsafe {
        with(data, |kind| match kind {
            Kind::Link(_) => PortAction::Continue,
            Kind::Stream(stream) => stream.ready_output(),
        });
    }
}

unsafe extern "C" fn timeout(data: sys::Data) {
    // SAFETY: as above.
    unsafe {
        with(data, |kind| match kind {
            Kind::Link(link) => link.timeout(),
            Kind::Stream(_) => PortAction::Continue,
        });
    }
}

unsafe extern "C" fn outputv(data: sys::Data, vector: *mut sys::ErlIoVec) {
    // SAFETY: as above, with the vector that the VM gives.
    unsafe {
        with(data, |kind| match kind {
            Kind::Link(link) => link.output(vector),
            Kind::Stream(stream) => stream.output(vector),
        });
    }
}

unsafe extern "C" fn flush(data: sys::Data) {
    // SAFETY: as above.
    unsafe {
        with(data, |kind| {
            match kind {
                Kind::Link(link) => link.flush(),
                // The VM keeps the port until the descriptor has taken its queue.
                Kind::Stream(_) => {}
            }
            PortAction::Continue
        });
    }
}

unsafe extern "C" fn control(
    data: sys::Data,
    operation: c_uint,
    bytes: *mut c_char,
    len: usize,
    reply: *mut *mut c_char,
    room: usize,
) -> isize {
    let mut name = None;
    // SAFETY: as above. The VM gives `len` readable bytes (no address if there are none), and
    // `room` bytes for the reply.
    unsafe {
        with(data, |kind| {
            let bytes = match len {
                0 => &[],
                _ => std::slice::from_raw_parts(bytes.cast::<u8>(), len),
            };
            let Kind::Link(link) = kind else {
                return PortAction::Continue;
            };
            match link.control(operation, bytes) {
                Some((atom, action)) => {
                    name = Some(atom);
                    action
                }
                None => PortAction::Continue,
            }
        });
        match name.map(CStr::to_bytes) {
            Some(name) if name.len() <= room => {
                ptr::copy_nonoverlapping(name.as_ptr(), (*reply).cast(), name.len());
                name.len() as isize
            }
            // The call raises badarg.
            _ => -1,
        }
    }
}

unsafe extern "C" fn stop_select(event: sys::Event, _reserved: *mut c_void) {
    catch_panic(|| selected_fd::release(event));
}

/// Calls `f` with the port's state, and then does what it returns. A panic ends the port.
///
/// # Safety
/// `data` is that of a callback of its port.
unsafe fn with(data: sys::Data, f: impl FnOnce(&mut Kind) -> PortAction) {
    let instance = data.cast::<Instance>();
    // SAFETY: made by `start` and not stopped yet. The port's lock is held, so this is the only
    // borrow. It ends before the VM is asked to end the port.
    let (port, action) = unsafe {
        let action = catch_panic(|| f(&mut (*instance).kind));
        ((*instance).port, action)
    };
    // SAFETY: in a callback of this port.
    unsafe {
        match action {
            Some(PortAction::Continue) => {}
            Some(PortAction::EndOfFile) => _ = sys::driver_failure_eof(port),
            Some(PortAction::Errno(errno)) => _ = sys::driver_failure_posix(port, errno),
            Some(PortAction::Exit(reason)) => _ = sys::driver_failure_atom(port, reason.as_ptr()),
            None => _ = sys::driver_failure_atom(port, c"panic".as_ptr()),
        }
    }
}
