//! `tubes top`: a live table of all tubes and their traffic, in a terminal.

mod board;
mod feed;
mod row;
mod screen;
mod sort;

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

/// How often to check for signals and updates. Keys take effect at once.
const TICK: Duration = Duration::from_millis(100);

/// Runs until a key or a signal ends it, or the store or the terminal is gone.
///
/// # Errors
/// There is no terminal, or the connection to the store is lost.
pub fn top(store: Store) -> Result<(), CommandError> {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return Err(CommandError::usage(
            "top needs a terminal; list --stats prints the same once",
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
        if let Some(update) = feed.latest()? {
            board.update(update);
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

/// Keys and changes of size. A thread of its own reads them, because `read` of crossterm loops
/// without end once the terminal is closed.
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

/// Whether the terminal is closed. Not every process gets a signal in that case.
fn hung_up() -> bool {
    let stdin = stdin();
    let mut terminal = [PollFd::new(&stdin, PollFlags::empty())];
    let now = Timespec::default();
    poll(&mut terminal, Some(&now)).is_ok()
        && terminal[0]
            .revents()
            .intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
}

/// The terminal in use by this program. Dropping it restores the previous state.
struct Screen(ratatui::DefaultTerminal);

impl Screen {
    fn enter() -> std::io::Result<Screen> {
        Ok(Screen(ratatui::try_init()?))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // This fails if the terminal is gone, and then does not matter.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}
