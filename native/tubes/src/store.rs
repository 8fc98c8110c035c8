//! A connection to xenstore without watches, through the blocking interface of xenstore-rs.
//!
//! That interface waits for an answer for ever, so it lives in a thread of its own and whoever
//! asks waits for a limited time. It numbers all requests 0 and takes the next message for its
//! answer; that is sound as long as this connection has no watches, which is why they have
//! another one (`watches`).

use std::io::ErrorKind;
use std::str::Utf8Error;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use xenstore_rs::Xs;
use xenstore_rs::unix::XsUnix;

use crate::error::CommandError;

/// How long the store may take for one answer. It takes microseconds.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// There is no such node.
    Missing,
    /// It may not be read (or is not there, below what may not be read).
    Denied,
    /// Its value is not UTF-8, and xenstore-rs gives nothing else.
    Binary,
    /// More names than one answer holds, and xenstore-rs cannot ask for them in parts.
    TooMany,
    /// The store's own word for something else.
    Other(String),
    /// There is no store any more.
    Lost(String),
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> CommandError {
        CommandError::failed(match error {
            StoreError::Missing => "it is not in the store".into(),
            StoreError::Denied => "the store does not let us".into(),
            StoreError::Binary => "the value is not text".into(),
            StoreError::TooMany => "too many names for one answer".into(),
            StoreError::Other(word) => format!("the store says {word}"),
            StoreError::Lost(why) => format!("the store is gone: {why}"),
        })
    }
}

enum Request {
    Read(String),
    Names(String),
    Write(String, String),
    Remove(String),
}

type Answer = std::io::Result<Vec<Box<str>>>;

/// The connection.
pub struct Store {
    requests: Sender<Request>,
    answers: Receiver<Answer>,
}

impl Store {
    /// Connects to what XENSTORED_PATH says (see `socket`).
    ///
    /// # Errors
    /// There is no store, in the system's words.
    pub fn open() -> std::io::Result<Store> {
        let xs = XsUnix::new()?;
        if crate::socket::strayed() {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let (requests, asked) = channel();
        let (answer, answers) = channel();
        std::thread::spawn(move || {
            for request in asked {
                let result: Answer = match request {
                    Request::Read(path) => xs.read(&path).map(|value| vec![value]),
                    Request::Names(path) => xs.directory(&path),
                    Request::Write(path, value) => xs.write(&path, &value).map(|()| Vec::new()),
                    Request::Remove(path) => xs.rm(&path).map(|()| Vec::new()),
                };
                if answer.send(result).is_err() {
                    return;
                }
            }
        });
        Ok(Store { requests, answers })
    }

    /// The value of a node.
    ///
    /// # Errors
    /// Why there is none.
    pub fn read(&self, path: &str) -> Result<String, StoreError> {
        let value = self.ask(Request::Read(path.to_owned()))?;
        Ok(value.concat())
    }

    /// The names below a node, sorted.
    ///
    /// # Errors
    /// Why there are none.
    pub fn names(&self, path: &str) -> Result<Vec<String>, StoreError> {
        let mut names: Vec<String> = self
            .ask(Request::Names(path.to_owned()))?
            .into_iter()
            .map(String::from)
            .filter(|name| !name.is_empty())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Sets a value; makes the node, and those above it, if there is none.
    ///
    /// # Errors
    /// Why it was not done.
    pub fn write(&self, path: &str, value: &str) -> Result<(), StoreError> {
        self.ask(Request::Write(path.to_owned(), value.to_owned()))
            .map(|_| ())
    }

    /// Removes a node with all that is below it. Fine if it is not there.
    ///
    /// # Errors
    /// Why it stays.
    pub fn remove(&self, path: &str) -> Result<(), StoreError> {
        match self.ask(Request::Remove(path.to_owned())) {
            Ok(_) | Err(StoreError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn ask(&self, request: Request) -> Result<Vec<Box<str>>, StoreError> {
        let lost = |why: &str| StoreError::Lost(why.to_owned());
        self.requests
            .send(request)
            .map_err(|_| lost("its thread has ended"))?;
        // After a late answer nothing fits any more; but nobody asks again after this error.
        self.answers
            .recv_timeout(PATIENCE)
            .map_err(|_| lost("it does not answer"))?
            .map_err(|error| translate(&error))
    }
}

/// xenstore-rs merges several of the store's errors into one kind; its text still has the word.
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
