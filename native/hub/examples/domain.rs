//! Lets a test elsewhere use the domain that this program runs in, over standard input and output.
//!
//!     domain actor xen                 acts as a domain of the conformance suite
//!     domain actor local RUN DOMID     the same, as a virtual domain
//!     domain store DEVICE              relays the messages of a store: /dev/xen/xenbus
//!
//! Xen's device takes one message per write, and no second one before it has replied to the first.
//! It reports some errors as the result of the write, which this program turns into error replies.

use std::env::args;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write, stdin, stdout};
use std::path::Path;
use std::sync::mpsc::channel;

use tube_platform::Errno;
use tube_platform::conformance::{Member, serve};
use tube_platform::local::Local;
use tube_platform::xen::Xen;

/// XS_WATCH_EVENT, XS_ERROR and the size of a header, from xen/include/public/io/xs_wire.h.
const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;
const HEADER: usize = 16;

fn main() -> Result<()> {
    let words: Vec<String> = args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["actor", "xen"] => run_actor(Member::new(Xen::attach().map_err(Error::other)?)),
        ["actor", "local", run, domid] => {
            let domid = domid.parse().map_err(Error::other)?;
            let local = Local::attach(Path::new(run), Some(domid)).map_err(Error::other)?;
            run_actor(Member::new(local))
        }
        ["store", device] => relay(&File::options().read(true).write(true).open(device)?),
        _ => {
            eprintln!("domain actor xen | domain actor local RUN DOMID | domain store DEVICE");
            std::process::exit(2)
        }
    }
}

fn run_actor(mut member: Member) -> Result<()> {
    serve(&mut member, &mut stdin().lock(), &mut stdout().lock())
}

/// Relays messages until standard input ends.
fn relay(device: &File) -> Result<()> {
    let mut output = device.try_clone()?;
    let (replied, reply) = channel();
    std::thread::spawn(move || {
        let (mut some, mut bytes) = ([0; HEADER + 4096], Vec::new());
        while let Ok(count @ 1..) = output.read(&mut some) {
            print(&some[..count]);
            bytes.extend_from_slice(&some[..count]);
            while let Some(kind) = take(&mut bytes) {
                if kind != WATCH_EVENT && replied.send(()).is_err() {
                    return;
                }
            }
        }
    });
    let mut requests = stdin().lock();
    loop {
        let mut message = vec![0; HEADER];
        match requests.read_exact(&mut message) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let length = u32::from_ne_bytes([message[12], message[13], message[14], message[15]]);
        message.resize(HEADER + length as usize, 0);
        requests.read_exact(&mut message[HEADER..])?;
        if let Err(error) = (&*device).write_all(&message) {
            let mut name = name(&error)?.as_bytes().to_vec();
            name.push(0);
            let mut header = ERROR.to_ne_bytes().to_vec();
            header.extend_from_slice(&message[4..12]);
            header.extend_from_slice(&(name.len() as u32).to_ne_bytes());
            print(&[header, name].concat());
        } else {
            // Fails if the device has closed.
            reply.recv().map_err(Error::other)?;
        }
    }
}

/// Removes the first message if it is complete. Returns its type.
fn take(bytes: &mut Vec<u8>) -> Option<u32> {
    let word = |at: usize| {
        bytes
            .get(at..at + 4)?
            .try_into()
            .ok()
            .map(u32::from_ne_bytes)
    };
    let (kind, length) = (word(0)?, HEADER + word(12)? as usize);
    (bytes.len() >= length).then(|| bytes.drain(..length))?;
    Some(kind)
}

/// Writes to standard output without interleaving.
fn print(bytes: &[u8]) {
    let mut out = stdout().lock();
    let printed = out.write_all(bytes).and_then(|()| out.flush());
    if printed.is_err() {
        // The test has ended.
        std::process::exit(0);
    }
}

/// The protocol's name of an error.
fn name(error: &Error) -> Result<&'static str> {
    let errno = Errno::from_io_error(error);
    Ok(match errno.ok_or(ErrorKind::Other)? {
        Errno::INVAL => "EINVAL",
        Errno::ACCESS => "EACCES",
        Errno::EXIST => "EEXIST",
        Errno::NOENT => "ENOENT",
        Errno::NOMEM => "ENOMEM",
        Errno::NOSPC => "ENOSPC",
        Errno::TOOBIG => "E2BIG",
        Errno::AGAIN => "EAGAIN",
        Errno::BUSY => "EBUSY",
        Errno::PERM => "EPERM",
        Errno::IO => "EIO",
        errno => return Err(Error::other(format!("the device reports {errno}"))),
    })
}
