//! The stream port: a byte stream of the platform (the store, the control connection) as a port
//! that sends `{port, {:data, binary}}` and takes `Port.command/2`.

use super::PortAction;
use super::iovec::{Piece, pieces};
use super::selected_fd::SelectedFd;
use crate::handles;
use crate::sys;
use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// Bytes per read. The VM polls again at once, so with one read per callback a busy stream does not
/// hold a scheduler.
const CHUNK: usize = 64 << 10;
/// With more queued bytes than this the port becomes busy.
const HIGH_WATERMARK: usize = 256 << 10;
/// With no more queued bytes than this it is no longer busy.
const LOW_WATERMARK: usize = 64 << 10;

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
    /// Takes the stream `id` for `port`. `None` if there is no such stream.
    ///
    /// # Safety
    /// In the `start` callback of `port`; the result must be dropped in its `stop`.
    pub unsafe fn open(port: sys::Port, id: u64) -> Option<StreamPort> {
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

    /// The stream has bytes, or has ended.
    pub fn ready_input(&mut self) -> PortAction {
        match self.file.as_ref().read(&mut self.buffer) {
            Ok(0) => PortAction::EndOfFile,
            Ok(n) => {
                // SAFETY: in a callback of this port; the bytes are copied before the call returns.
                unsafe { sys::driver_output(self.port, self.buffer.as_ptr(), n) };
                PortAction::Continue
            }
            Err(error) => failed(&error),
        }
    }

    /// The stream takes bytes again.
    pub fn ready_output(&mut self) -> PortAction {
        let mut count = 0;
        // SAFETY: in a callback of this port; the queue does not change before `driver_deq`.
        let queue = unsafe { pieces(sys::driver_peekq(self.port, &mut count), count as usize) };
        match self.write(queue) {
            // SAFETY: in a callback of this port, and no more than was in the queue.
            Ok(n) => _ = unsafe { sys::driver_deq(self.port, n) },
            Err(error) => return failed(&error),
        }
        self.update_polling();
        PortAction::Continue
    }

    /// Writes the bytes of a port command, or queues them.
    ///
    /// # Safety
    /// `vector` is that of an `outputv` callback of this port.
    pub unsafe fn output(&mut self, vector: *mut sys::ErlIoVec) -> PortAction {
        // SAFETY: the caller's promise; the vector is untouched until `driver_enqv`.
        unsafe {
            let (count, size) = ((*vector).vsize as usize, (*vector).size);
            let mut written = 0;
            if sys::driver_sizeq(self.port) == 0 {
                match self.write(pieces((*vector).iov, count)) {
                    Ok(n) => written = n,
                    Err(error) => return failed(&error),
                }
            }
            if written < size {
                sys::driver_enqv(self.port, vector, written);
            }
        }
        self.update_polling();
        PortAction::Continue
    }

    /// Polls for output only while bytes are queued, and makes the port busy when they are many.
    fn update_polling(&mut self) {
        // SAFETY: in a callback of this port.
        let queued = unsafe { sys::driver_sizeq(self.port) };
        self.selected.poll(sys::WRITE, queued > 0);
        let busy = queued
            > if self.busy {
                LOW_WATERMARK
            } else {
                HIGH_WATERMARK
            };
        if busy != self.busy {
            self.busy = busy;
            // SAFETY: in a callback of this port.
            unsafe { sys::set_busy_port(self.port, busy.into()) };
        }
    }

    /// Writes as many bytes as the descriptor takes without blocking, maybe none.
    fn write(&self, pieces: &[Piece]) -> std::io::Result<usize> {
        let slices: Vec<IoSlice> = pieces
            .iter()
            .map(|piece| IoSlice::new(piece.as_ref()))
            .filter(|slice| !slice.is_empty())
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

fn failed(error: &std::io::Error) -> PortAction {
    match error.raw_os_error() {
        _ if is_transient(error) => PortAction::Continue,
        Some(errno) => PortAction::Errno(errno),
        None => PortAction::Exit(c"eio"),
    }
}

fn is_transient(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
