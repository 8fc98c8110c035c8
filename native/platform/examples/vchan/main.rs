//! One end of a libxenvchan channel, for `bin/bench xen` to compare with tubes. It does the same
//! steps as the two halves of bench/lib/work.ex.
//!
//!     vchan offer PEER PATH BYTES     offers a channel with rings of BYTES bytes
//!     vchan open PEER PATH            in the other domain, once the first has printed its line
//!
//! Prints `rings RECEIVE TRANSMIT`, then executes the commands on its standard input, one per line:
//!
//!     send SIZE COUNT      messages to an end that executes `take`; prints `took NANOSECONDS`
//!     take SIZE COUNT      prints `done`
//!     ask SIZE COUNT       round trips with an end that executes `answer`; prints the time of each
//!     answer SIZE COUNT    prints `done`
//!     end                  closes the channel
//!
//! It exits at the end of standard input, even if it is blocked in a call.

mod channel;

use std::fmt::Write as _;
use std::io::{Error, Result, Write, stdin, stdout};
use std::sync::mpsc;
use std::time::Instant;

use channel::Channel;

const FILL: u8 = 0xA5;
/// Sent by the receiving side when it is ready, and when it has received everything.
const READY: [u8; 4] = *b"word";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut channel = match words[..] {
        ["offer", peer, path, bytes] => Channel::offer(number(peer)?, path, number(bytes)?)?,
        ["open", peer, path] => Channel::open(number(peer)?, path)?,
        _ => {
            return Err(Error::other(
                "vchan offer PEER PATH BYTES | vchan open PEER PATH",
            ));
        }
    };
    let (receive, transmit) = channel.rings();
    print_line(&format!("rings {receive} {transmit}"))?;
    for line in lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let result = match words[..] {
            ["end"] => return Ok(()),
            [verb, size, count] => execute(&mut channel, verb, number(size)?, number(count)?)?,
            _ => return Err(Error::other(format!("unknown command {line:?}"))),
        };
        print_line(&result)?;
    }
    Ok(())
}

fn execute(channel: &mut Channel, verb: &str, size: usize, count: usize) -> Result<String> {
    if size == 0 {
        return Err(Error::other("a message has at least one byte"));
    }
    match verb {
        "send" => send(channel, size, count),
        "take" => take(channel, size, count),
        "ask" => ask(channel, size, count),
        "answer" => answer(channel, size, count),
        _ => Err(Error::other(format!("unknown command {verb:?}"))),
    }
}

fn send(channel: &mut Channel, size: usize, count: usize) -> Result<String> {
    let message = vec![FILL; size];
    expect_ready(channel)?;
    let began = Instant::now();
    for _ in 0..count {
        channel.send(&message)?;
    }
    expect_ready(channel)?;
    Ok(format!("took {}", began.elapsed().as_nanos()))
}

/// One call per message, as in the sender. Receiving all there is and splitting it was not
/// measured.
fn take(channel: &mut Channel, size: usize, count: usize) -> Result<String> {
    let mut message = vec![0; size];
    channel.send(&READY)?;
    for _ in 0..count {
        channel.recv(&mut message)?;
        check_message(&message)?;
    }
    channel.send(&READY)?;
    Ok("done".into())
}

/// Reads the clock once per round trip, because that is slow under emulation.
fn ask(channel: &mut Channel, size: usize, count: usize) -> Result<String> {
    let message = vec![FILL; size];
    let mut reply = vec![0; size];
    let mut samples = Vec::with_capacity(count);
    expect_ready(channel)?;
    let mut began = Instant::now();
    for _ in 0..count {
        channel.send(&message)?;
        channel.recv(&mut reply)?;
        let now = Instant::now();
        samples.push((now - began).as_nanos());
        began = now;
    }
    check_message(&reply)?;
    let mut result = String::from("samples");
    for sample in samples {
        write!(result, " {sample}").map_err(Error::other)?;
    }
    Ok(result)
}

fn answer(channel: &mut Channel, size: usize, count: usize) -> Result<String> {
    let mut message = vec![0; size];
    channel.send(&READY)?;
    for _ in 0..count {
        channel.recv(&mut message)?;
        channel.send(&message)?;
    }
    Ok("done".into())
}

fn expect_ready(channel: &mut Channel) -> Result<()> {
    let mut word = READY;
    channel.recv(&mut word)?;
    if word == READY {
        Ok(())
    } else {
        Err(Error::other("expected the ready message"))
    }
}

/// Checks both ends of the message, which lie in different pages if it is large.
fn check_message(message: &[u8]) -> Result<()> {
    match message {
        [FILL] | [FILL, .., FILL] => Ok(()),
        _ => Err(Error::other("received a message that was not sent")),
    }
}

/// The lines of standard input. Calls on a channel block without a limit, so its end exits the
/// process.
fn lines() -> mpsc::Receiver<String> {
    let (to, from) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stdin().lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
        std::process::exit(1);
    });
    from
}

fn print_line(line: &str) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T> {
    word.parse()
        .map_err(|_| Error::other(format!("{word:?} is not a number")))
}
