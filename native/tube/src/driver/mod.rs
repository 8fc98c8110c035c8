//! The driver half: the callbacks of the linked-in driver `tube`, and its two kinds of port. The command
//! of `open_port` is `tube link <id> <build>` or `tube stream <id> <build>`.

mod delivery;
mod dist;
mod fragments;
mod link;
mod message_buffer;
mod operation;
mod selected_fd;
mod stream;
mod term;

use crate::build_id;
use crate::catch_panic::catch_panic;
use crate::sys;
use link::LinkPort;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::Once;
use stream::StreamPort;

/// What a callback wants done with its port. Done when nothing of the port is borrowed any more, because
/// the VM may call `stop` from within.
pub enum Verdict {
    /// Nothing.
    Stay,
    /// Exit with reason `normal`.
    EndOfFile,
    /// Exit with the name of this error number.
    Errno(c_int),
    /// Exit with this atom.
    Reason(&'static CStr),
}

/// One open port: what the VM hands to every callback.
struct Instance {
    port: sys::Port,
    kind: Kind,
}

// In a box of its own each, and links are the many.
#[allow(clippy::large_enum_variant)]
enum Kind {
    Link(LinkPort),
    Stream(StreamPort),
}

/// Called by the VM when it loads this library as a driver.
#[unsafe(no_mangle)]
pub extern "C" fn driver_init() -> *mut sys::Entry {
    let (major_version, minor_version) = sys::EXTENDED_VERSION;
    // Leaked on purpose: the VM keeps it, and writes to it.
    Box::into_raw(Box::new(sys::Entry {
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
        // Else the VM unloads the driver, and kills its ports, when the process that loaded it dies.
        // SAFETY: in a callback of this port.
        LOCK.call_once(|| _ = unsafe { sys::driver_lock_driver(port) });
        // SAFETY: the VM gives a string that ends in a zero byte.
        let command = unsafe { CStr::from_ptr(command) }.to_str().ok()?;
        let ["tube", kind, id, build] = command.split(' ').collect::<Vec<_>>()[..] else {
            return None;
        };
        if build != build_id::build_id() {
            return None;
        }
        let id = id.parse().ok()?;
        let kind = match kind {
            "link" => Kind::Link(LinkPort::start(port, id)?),
            // SAFETY: this is the `start` of that port, and `stop` drops it.
            "stream" => Kind::Stream(unsafe { StreamPort::start(port, id)? }),
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
            Kind::Link(_) => Verdict::Stay,
            Kind::Stream(stream) => stream.ready_output(),
        });
    }
}

unsafe extern "C" fn timeout(data: sys::Data) {
    // SAFETY: as above.
    unsafe {
        with(data, |kind| match kind {
            Kind::Link(link) => link.timeout(),
            Kind::Stream(_) => Verdict::Stay,
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
                // Its queue empties as the descriptor takes it.
                Kind::Stream(_) => {}
            }
            Verdict::Stay
        });
    }
}

unsafe extern "C" fn control(
    data: sys::Data,
    operation: c_uint,
    bytes: *mut c_char,
    len: usize,
    answer: *mut *mut c_char,
    room: usize,
) -> isize {
    let mut said = None;
    // SAFETY: as above. The VM gives `len` readable bytes, none of which may be anywhere, and `room` bytes to
    // answer in.
    unsafe {
        with(data, |kind| {
            let bytes = match len {
                0 => &[],
                _ => std::slice::from_raw_parts(bytes.cast::<u8>(), len),
            };
            let Kind::Link(link) = kind else {
                return Verdict::Stay;
            };
            match link.control(operation, bytes) {
                Some((word, verdict)) => {
                    said = Some(word);
                    verdict
                }
                None => Verdict::Stay,
            }
        });
        match said.map(CStr::to_bytes) {
            Some(said) if said.len() <= room => {
                ptr::copy_nonoverlapping(said.as_ptr(), (*answer).cast(), said.len());
                said.len() as isize
            }
            // The call raises badarg.
            _ => -1,
        }
    }
}

unsafe extern "C" fn stop_select(event: sys::Event, _reserved: *mut c_void) {
    catch_panic(|| selected_fd::release(event));
}

/// Calls `f` with the port's state, and then does what it wants. A panic ends the port.
///
/// # Safety
/// `data` is that of a callback of its port.
unsafe fn with(data: sys::Data, f: impl FnOnce(&mut Kind) -> Verdict) {
    let instance = data.cast::<Instance>();
    // SAFETY: made by `start` and not stopped yet. The port's lock is held, so nobody else has it; the borrow
    // ends before the VM is asked to end the port.
    let (port, verdict) = unsafe {
        let verdict = catch_panic(|| f(&mut (*instance).kind));
        ((*instance).port, verdict)
    };
    // SAFETY: in a callback of this port.
    unsafe {
        match verdict {
            Some(Verdict::Stay) => {}
            Some(Verdict::EndOfFile) => _ = sys::driver_failure_eof(port),
            Some(Verdict::Errno(errno)) => _ = sys::driver_failure_posix(port, errno),
            Some(Verdict::Reason(reason)) => _ = sys::driver_failure_atom(port, reason.as_ptr()),
            None => _ = sys::driver_failure_atom(port, c"panic".as_ptr()),
        }
    }
}
