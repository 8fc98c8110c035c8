//! A connection to xenstore, through the blocking interface of xenstore-rs.
//!
//! That interface waits for replies without a limit, so a thread of its own calls it and the caller
//! waits with a timeout. It gives all requests the number 0 and takes the next message for the
//! reply. That is only sound without watches, which therefore have a connection of their own
//! (`watches`).

use std::io::ErrorKind;
use std::str::Utf8Error;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use xenstore_rs::Xs;
use xenstore_rs::unix::XsUnix;

use crate::error::CommandError;

/// How long the store may take to reply, or to accept a connection. It needs microseconds.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the store did not do what a request asked for.
///
/// Commands handle some of these; only `Lost` always ends them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The node does not exist.
    Missing,
    /// We have no access. The node may also not exist, if we have no access to its parent.
    Denied,
    /// The value is not UTF-8, so xenstore-rs does not return it.
    Binary,
    /// The names do not fit into one reply, and xenstore-rs cannot request them in parts.
    TooMany,
    /// The store returned another error.
    Other(String),
    /// The connection to the store is lost.
    Lost(String),
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> CommandError {
        CommandError::failed(match error {
            StoreError::Missing => "the node does not exist".into(),
            StoreError::Denied => "the store denies access".into(),
            StoreError::Binary => "the value is not UTF-8".into(),
            StoreError::TooMany => "too many names for one reply".into(),
            StoreError::Other(word) => format!("the store returned {word}"),
            StoreError::Lost(why) => format!("the store is gone: {why}"),
        })
    }
}

/// Replaces an error by the default value, unless the connection to the store is lost.
///
/// # Errors
/// The connection to the store is lost.
pub fn tolerate<T: Default>(result: Result<T, StoreError>) -> Result<T, StoreError> {
    match result {
        Err(error @ StoreError::Lost(_)) => Err(error),
        Err(_) => Ok(T::default()),
        ok => ok,
    }
}

enum Request {
    Read(String),
    Names(String),
    Write(String, String),
    Remove(String),
}

type Reply = std::io::Result<Vec<Box<str>>>;

/// The connection.
pub struct Store {
    requests: Sender<Request>,
    replies: Receiver<Reply>,
}

impl Store {
    /// Connects to the store that XENSTORED_PATH names (see `socket`).
    ///
    /// # Errors
    /// The connection fails.
    pub fn open() -> std::io::Result<Store> {
        let xs = XsUnix::new()?;
        if crate::socket::fell_back_to_device() {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let (requests, incoming) = channel();
        let (outgoing, replies) = channel();
        std::thread::spawn(move || {
            for request in incoming {
                let reply: Reply = match request {
                    Request::Read(path) => xs.read(&path).map(|value| vec![value]),
                    Request::Names(path) => xs.directory(&path),
                    Request::Write(path, value) => xs.write(&path, &value).map(|()| Vec::new()),
                    Request::Remove(path) => xs.rm(&path).map(|()| Vec::new()),
                };
                if outgoing.send(reply).is_err() {
                    return;
                }
            }
        });
        Ok(Store { requests, replies })
    }

    /// The value of a node.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, path: &str) -> Result<String, StoreError> {
        let value = self.request(Request::Read(path.to_owned()))?;
        Ok(value.concat())
    }

    /// The names below a node, sorted.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn names(&self, path: &str) -> Result<Vec<String>, StoreError> {
        let mut names: Vec<String> = self
            .request(Request::Names(path.to_owned()))?
            .into_iter()
            .map(String::from)
            .filter(|name| !name.is_empty())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Sets the value of a node. Creates the node and its parents if needed.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &str, value: &str) -> Result<(), StoreError> {
        self.request(Request::Write(path.to_owned(), value.to_owned()))
            .map(|_| ())
    }

    /// Removes a node and all nodes below it. Succeeds if it does not exist.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, path: &str) -> Result<(), StoreError> {
        match self.request(Request::Remove(path.to_owned())) {
            Ok(_) | Err(StoreError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn request(&self, request: Request) -> Result<Vec<Box<str>>, StoreError> {
        let lost = |why: &str| StoreError::Lost(why.to_owned());
        self.requests
            .send(request)
            .map_err(|_| lost("its thread has ended"))?;
        // A late reply would be taken for that of the next request, but `Lost` is final.
        self.replies
            .recv_timeout(TIMEOUT)
            .map_err(|_| lost("it does not reply"))?
            .map_err(|error| translate(&error))
    }
}

/// xenstore-rs merges several errors of the store into one kind, but its text still names them.
fn translate(error: &std::io::Error) -> StoreError {
    if error.get_ref().is_some_and(|inner| inner.is::<Utf8Error>()) {
        return StoreError::Binary;
    }
    let text = error.to_string();
    match text.strip_prefix("XS interface error ") {
        Some("ENOENT") => StoreError::Missing,
        Some("EACCES" | "EPERM") => StoreError::Denied,
        Some("E2BIG") => StoreError::TooMany,
        Some(word) => StoreError::Other(crate::text::escape(word)),
        None if error.kind() == ErrorKind::UnexpectedEof => {
            StoreError::Lost("it has closed the connection".into())
        }
        None => StoreError::Lost(text),
    }
}
