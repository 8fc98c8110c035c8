//! Lends the domain that it runs in to a test elsewhere, over its standard input and output.
//!
//!     domain actor xen                 plays a domain of the conformance suite
//!     domain actor local RUN DOMID     the same, as a virtual domain
//!     domain store DEVICE              passes a store's messages on: /dev/xen/xenbus
//!
//! It knows Xen's device only as far as that takes one message in each write, no second before the first
//! is answered, and answers some by the result of the write: those come back as the store's own errors would.

use std::env::args;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write, stdin, stdout};
use std::path::Path;
use std::sync::mpsc::channel;

use tube_platform::Errno;
use tube_platform::conformance::{Member, serve};
use tube_platform::local::Local;
use tube_platform::xen::Xen;

/// XS_WATCH_EVENT, XS_ERROR, and bytes of a header, in xen/include/public/io/xs_wire.h.
const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;
const HEADER: usize = 16;

fn main() -> Result<()> {
    let words: Vec<String> = args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["actor", "xen"] => act(Member::new(Xen::attach().map_err(Error::other)?)),
        ["actor", "local", run, domid] => {
            let domid = domid.parse().map_err(Error::other)?;
            let local = Local::attach(Path::new(run), Some(domid)).map_err(Error::other)?;
            act(Member::new(local))
        }
        ["store", device] => pass_on(&File::options().read(true).write(true).open(device)?),
        _ => {
            eprintln!("domain actor xen | domain actor local RUN DOMID | domain store DEVICE");
            std::process::exit(2)
        }
    }
}

fn act(mut member: Member) -> Result<()> {
    serve(&mut member, &mut stdin().lock(), &mut stdout().lock())
}

/// Until standard input ends.
fn pass_on(device: &File) -> Result<()> {
    let mut answers = device.try_clone()?;
    let (answered, answer) = channel();
    std::thread::spawn(move || {
        let (mut some, mut bytes) = ([0; HEADER + 4096], Vec::new());
        while let Ok(count @ 1..) = answers.read(&mut some) {
            say(&some[..count]);
            bytes.extend_from_slice(&some[..count]);
            while let Some(kind) = take(&mut bytes) {
                if kind != WATCH_EVENT && answered.send(()).is_err() {
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
            let mut refusal = ERROR.to_ne_bytes().to_vec();
            refusal.extend_from_slice(&message[4..12]);
            refusal.extend_from_slice(&(name.len() as u32).to_ne_bytes());
            say(&[refusal, name].concat());
        } else {
            // An end of the channel is one of the device.
            answer.recv().map_err(Error::other)?;
        }
    }
}

/// Takes the first message off, if all of it is there; its type.
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

/// All of it, before anybody else says something.
fn say(bytes: &[u8]) {
    let mut out = stdout().lock();
    let said = out.write_all(bytes).and_then(|()| out.flush());
    if said.is_err() {
        // Nobody listens any more.
        std::process::exit(0);
    }
}

/// As the store spells it.
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
        errno => return Err(Error::other(format!("the device answers {errno}"))),
    })
}
