//! The text format of the recording.

use crate::wire::*;

/// One step of the recording.
pub struct Step {
    pub line: usize,
    /// The text without the reply.
    pub text: String,
    pub guest: u32,
    pub transaction: Option<String>,
    pub request: Request,
    reply: String,
    /// Other replies by place.
    exceptions: Vec<(String, String)>,
}

/// What a guest does.
pub enum Request {
    /// Sends one request of this kind with this payload.
    Plain(u32, Vec<u8>),
    /// Starts a transaction and gives it a name.
    Start(String),
    /// Ends a named transaction, with this payload.
    End(String, &'static [u8]),
    /// Lists the events since the last time.
    Events,
    /// Opens transactions until one is refused.
    FillTransactions,
    /// Sets watches on this path until one is refused.
    FillWatches(String),
    /// Creates nodes below this path until one is refused.
    FillNodes(String),
}

impl Step {
    /// The expected reply in these places: the daemon, and the way to it.
    pub fn expected(&self, places: &[&str]) -> &str {
        let other = self
            .exceptions
            .iter()
            .find(|(place, _)| places.contains(&place.as_str()));
        other.map_or(&self.reply, |(_, reply)| reply)
    }
}

pub fn parse(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(exceptions) = line.trim_start().strip_prefix("! ") {
            let (place, rest) = exceptions.split_once(": ").expect("a place and a reply");
            // Two spaces separate the reason.
            let reply = rest.split("  ").next().unwrap_or(rest);
            let step = steps.last_mut().expect("a step before");
            step.exceptions.push((place.into(), reply.into()));
            continue;
        }
        let (text, reply) = line.split_once(" = ").expect("a request and its reply");
        let mut words = text.split_whitespace().peekable();
        let guest = words.next().and_then(|word| word.parse().ok());
        let transaction = words
            .next_if(|word| word.starts_with('@'))
            .map(|word| word[1..].to_owned());
        let words: Vec<&str> = words.collect();
        steps.push(Step {
            line: at + 1,
            text: text.trim_end().into(),
            guest: guest.expect("a guest"),
            transaction,
            request: request(&words).unwrap_or_else(|| panic!("line {}: {line}", at + 1)),
            reply: reply.trim().into(),
            exceptions: Vec::new(),
        });
    }
    steps
}

fn request(words: &[&str]) -> Option<Request> {
    let strings = |kind, words: &[&str]| {
        let payload = words
            .iter()
            .flat_map(|word| [word.as_bytes(), b"\0"].concat());
        Request::Plain(kind, payload.collect())
    };
    Some(match *words {
        ["read", _] => strings(READ, &words[1..]),
        ["dir", _] => strings(DIRECTORY, &words[1..]),
        ["getperms", _] => strings(GET_PERMS, &words[1..]),
        ["mkdir", _] => strings(MKDIR, &words[1..]),
        ["rm", _] => strings(RM, &words[1..]),
        ["setperms", _, _, ..] => strings(SET_PERMS, &words[1..]),
        ["watch", _, _] => strings(WATCH, &words[1..]),
        ["unwatch", _, _] => strings(UNWATCH, &words[1..]),
        ["path", _] => strings(GET_DOMAIN_PATH, &words[1..]),
        ["introduced", _] => strings(IS_DOMAIN_INTRODUCED, &words[1..]),
        ["write", path, value] => {
            let value = match value.strip_prefix("v*").map(str::parse) {
                Some(Ok(times)) => "v".repeat(times),
                _ => value.to_owned(),
            };
            Request::Plain(WRITE, format!("{path}\0{value}").into_bytes())
        }
        ["start", name] => Request::Start(name.into()),
        ["commit", name] => Request::End(name.into(), b"T\0"),
        ["abort", name] => Request::End(name.into(), b"F\0"),
        ["events"] => Request::Events,
        ["fill", "transactions"] => Request::FillTransactions,
        ["fill", "watches", path] => Request::FillWatches(path.into()),
        ["fill", "nodes", path] => Request::FillNodes(path.into()),
        _ => return None,
    })
}

/// The reply to a request of this kind, as text.
pub fn to_text(kind: u32, reply: &Message) -> String {
    let payload = reply.payload.strip_suffix(b"\0").unwrap_or(&reply.payload);
    let text = String::from_utf8_lossy(payload);
    if reply.payload.is_empty() {
        "-".into()
    } else if payload.len() > 100 {
        format!("<{} bytes>", payload.len())
    } else if kind == DIRECTORY && reply.kind == DIRECTORY {
        // The order is unspecified.
        let mut names: Vec<&str> = text.split('\0').collect();
        names.sort_unstable();
        names.join(" ")
    } else {
        text.replace('\0', " ")
    }
}

/// Whether a reply is the expected one. A limit may differ by a fifth.
pub fn matches(expected: &str, reply: &str) -> bool {
    match (expected.split_once(" after "), reply.split_once(" after ")) {
        (Some((why, expected)), Some((refused, count))) => {
            let [expected, count] = [expected, count].map(|text| text.parse().unwrap_or(0usize));
            why == refused && expected.abs_diff(count) * 5 <= expected
        }
        _ => expected == reply,
    }
}

/// The text with its replies replaced by these.
pub fn record(text: &str, answered: &[(Step, String)]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (step, reply) in answered {
        lines[step.line - 1] = format!("{:<44} = {reply}", step.text);
    }
    lines.join("\n") + "\n"
}
