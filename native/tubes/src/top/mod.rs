//! `tubes top`: all tubes and what goes through them, in a terminal, until told to end.

pub mod board;
pub mod feed;
pub mod screen;

use std::io::{IsTerminal, stdin, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::CommandError;
use crate::store::Store;
use board::Board;
use feed::Feed;

/// Within this a signal ends it and a new look is shown. A key is answered at once.
const TICK: Duration = Duration::from_millis(100);

/// Goes on until a key, a signal, or the end of the store or the terminal.
///
/// # Errors
/// There is no terminal, or the store is lost.
pub fn top(store: Store) -> Result<(), CommandError> {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return Err(CommandError::usage(
            "top needs a terminal; list --stats says the same once",
        ));
    }
    let quit = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP, SIGINT] {
        signal_hook::flag::register(signal, quit.clone())?;
    }
    let feed = Feed::start(store);
    let mut screen = Screen::enter()?;
    let events = events();
    let mut board = Board::default();
    let mut draw = true;
    while !quit.load(Ordering::Relaxed) && !hung_up() {
        if let Some(look) = feed.latest()? {
            board.update(look);
            draw = true;
        }
        if draw {
            screen.0.draw(|frame| screen::draw(frame, &mut board))?;
        }
        match events.recv_timeout(TICK) {
            Ok(Event::Key(key)) if board.key(key) => break,
            Ok(_) => draw = true,
            Err(RecvTimeoutError::Timeout) => draw = false,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(())
}

/// Keys and changes of size. In a thread of its own, because crossterm goes round and round in its
/// `read` once the terminal is closed.
fn events() -> Receiver<Event> {
    let (send, events) = channel();
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if send.send(event).is_err() {
                return;
            }
        }
    });
    events
}

/// Whether the terminal is closed; not everybody gets a signal then.
fn hung_up() -> bool {
    let stdin = stdin();
    let mut terminal = [PollFd::new(&stdin, PollFlags::empty())];
    let now = Timespec::default();
    poll(&mut terminal, Some(&now)).is_ok()
        && terminal[0]
            .revents()
            .intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
}

/// The terminal while it is ours: given back as it was, however we end.
struct Screen(ratatui::DefaultTerminal);

impl Screen {
    fn enter() -> std::io::Result<Screen> {
        Ok(Screen(ratatui::try_init()?))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone cannot be restored, and there is nobody to tell.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}
