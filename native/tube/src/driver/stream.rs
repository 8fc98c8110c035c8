//! The stream port: a byte stream of the platform (the store, the control connection) as a port that
//! sends `{port, {:data, binary}}` and takes `Port.command/2`.

use super::Verdict;
use super::selected_fd::SelectedFd;
use crate::handles;
use crate::sys;
use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// Bytes read at a time. The VM polls again at once, so one read per wake-up keeps a busy stream from
/// holding a scheduler.
const CHUNK: usize = 64 << 10;
/// Queued output above this makes the port busy, below [`CALM`] it is ready again. Bytes.
const BUSY: usize = 256 << 10;
const CALM: usize = 64 << 10;

/// One open stream.
pub struct StreamPort {
    port: sys::Port,
    file: Arc<File>,
    selected: SelectedFd,
    buffer: Box<[u8]>,
    busy: bool,
    _counted: handles::OpenStream,
}

impl StreamPort {
    /// Takes the parked stream `id` for `port`. `None` for an id that is not there.
    ///
    /// # Safety
    /// In the `start` callback of `port`; the result must be dropped in its `stop`.
    pub unsafe fn start(port: sys::Port, id: u64) -> Option<StreamPort> {
        let (file, counted) = handles::take_stream(id)?;
        let file = Arc::new(file);
        // SAFETY: as for this function.
        let selected = unsafe { SelectedFd::new(port, file.as_raw_fd(), file.clone())? };
        Some(StreamPort {
            port,
            file,
            selected,
            buffer: vec![0; CHUNK].into_boxed_slice(),
            busy: false,
            _counted: counted,
        })
    }

    /// There is something to read, or the end.
    pub fn ready_input(&mut self) -> Verdict {
        match self.file.as_ref().read(&mut self.buffer) {
            Ok(0) => Verdict::EndOfFile,
            Ok(n) => {
                // SAFETY: in a callback of this port; the bytes are copied before the call returns.
                unsafe { sys::driver_output(self.port, self.buffer.as_ptr(), n) };
                Verdict::Stay
            }
            Err(error) => failed(&error),
        }
    }

    /// There is room to write again.
    pub fn ready_output(&mut self) -> Verdict {
        let mut pieces = 0;
        // SAFETY: in a callback of this port.
        let queue = unsafe { sys::driver_peekq(self.port, &mut pieces) };
        if !queue.is_null() && pieces > 0 {
            // SAFETY: the VM's queue does not change before `driver_deq`.
            match unsafe { self.write(queue, pieces as usize) } {
                // SAFETY: in a callback of this port, and no more than was in the queue.
                Ok(n) => _ = unsafe { sys::driver_deq(self.port, n) },
                Err(error) => return failed(&error),
            }
        }
        self.settle();
        Verdict::Stay
    }

    /// The owner, or whoever knows the port, writes.
    ///
    /// # Safety
    /// `vector` is that of an `outputv` callback of this port.
    pub unsafe fn output(&mut self, vector: *mut sys::ErlIoVec) -> Verdict {
        // SAFETY: the caller's promise; the vector is untouched until `driver_enqv`.
        unsafe {
            let (pieces, size) = ((*vector).vsize as usize, (*vector).size);
            let mut written = 0;
            if sys::driver_sizeq(self.port) == 0 {
                match self.write((*vector).iov, pieces) {
                    Ok(n) => written = n,
                    Err(error) => return failed(&error),
                }
            }
            if written < size {
                sys::driver_enqv(self.port, vector, written);
            }
        }
        self.settle();
        Verdict::Stay
    }

    /// Polls for room exactly while there is a queue, and tells senders to hold when it is long.
    fn settle(&mut self) {
        // SAFETY: in a callback of this port.
        let queued = unsafe { sys::driver_sizeq(self.port) };
        self.selected.poll(sys::WRITE, queued > 0);
        let busy = queued > if self.busy { CALM } else { BUSY };
        if busy != self.busy {
            self.busy = busy;
            // SAFETY: in a callback of this port.
            unsafe { sys::set_busy_port(self.port, busy.into()) };
        }
    }

    /// Writes what the descriptor takes without blocking; 0 if it takes nothing now.
    ///
    /// # Safety
    /// `iov` are `pieces` readable pieces.
    unsafe fn write(&self, iov: *const sys::IoVec, pieces: usize) -> std::io::Result<usize> {
        // SAFETY: the caller's promise. A piece of length 0 may have no address.
        let slices: Vec<IoSlice> = unsafe { std::slice::from_raw_parts(iov, pieces) }
            .iter()
            .filter(|piece| piece.len > 0)
            // SAFETY: the caller's promise: each piece with a length is readable for that length.
            .map(|piece| IoSlice::new(unsafe { std::slice::from_raw_parts(piece.base, piece.len) }))
            .collect();
        if slices.is_empty() {
            return Ok(0);
        }
        match self.file.as_ref().write_vectored(&slices) {
            Err(error) if is_transient(&error) => Ok(0),
            other => other,
        }
    }
}

fn failed(error: &std::io::Error) -> Verdict {
    match error.raw_os_error() {
        _ if is_transient(error) => Verdict::Stay,
        Some(errno) => Verdict::Errno(errno),
        None => Verdict::Reason(c"eio"),
    }
}

fn is_transient(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
