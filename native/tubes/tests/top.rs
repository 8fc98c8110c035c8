//! `tubes top` in a pseudo-terminal, with an emulator that records the screen.

mod common;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use common::{Counters, Store};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// Turns a hang into a failure.
const LIMIT: Duration = Duration::from_secs(20);

struct Terminal {
    child: Child,
    /// The side that types and reads the screen. Dropping the channel ends the reading thread.
    master: Option<(File, Sender<()>)>,
    /// The child's side, to inspect its settings.
    slave: Option<OwnedFd>,
    shown: Arc<(Mutex<vt100::Parser>, Condvar)>,
}

impl Terminal {
    fn start(store: &Store, rows: u16, columns: u16) -> Terminal {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave: OwnedFd = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap()
            .into();
        tcsetwinsize(&master, size(rows, columns)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tubes"));
        command
            .arg("--socket")
            .arg(store.socket())
            .arg("top")
            .env("TERM", "xterm-256color")
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap());
        // SAFETY: between fork and exec it makes two system calls and touches no memory.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let shown = Arc::new((
            Mutex::new(vt100::Parser::new(cells(rows), cells(columns), 0)),
            Condvar::new(),
        ));
        let master = File::from(master);
        let (mut reader, thread_shown) = (master.try_clone().unwrap(), shown.clone());
        let (closed, closing) = channel::<()>();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while closing.try_recv() == Err(TryRecvError::Empty) {
                let mut ready = [PollFd::new(&reader, PollFlags::IN)];
                let step = Timespec {
                    tv_sec: 0,
                    tv_nsec: 50_000_000,
                };
                if rustix::event::poll(&mut ready, Some(&step)).is_ok_and(|n| n == 0) {
                    continue;
                }
                let Ok(n @ 1..) = reader.read(&mut bytes) else {
                    return;
                };
                thread_shown.0.lock().unwrap().process(&bytes[..n]);
                thread_shown.1.notify_all();
            }
        });
        Terminal {
            child,
            master: Some((master, closed)),
            slave: Some(slave),
            shown,
        }
    }

    fn press(&mut self, keys: &str) {
        let (master, _) = self.master.as_mut().unwrap();
        master.write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&self, rows: u16, columns: u16) {
        self.shown
            .0
            .lock()
            .unwrap()
            .screen_mut()
            .set_size(cells(rows), cells(columns));
        tcsetwinsize(&self.master.as_ref().unwrap().0, size(rows, columns)).unwrap();
    }

    /// Waits until the text of the screen is right.
    fn await_screen(&self, what: &str, right: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + LIMIT;
        let mut parser = self.shown.0.lock().unwrap();
        loop {
            let text = text(&parser);
            if right(&text) {
                return text;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{what} does not appear; the screen is\n{text}"
            );
            parser = self.shown.1.wait_timeout(parser, left).unwrap().0;
        }
    }

    fn end(&mut self) -> ExitStatus {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// As if its window were closed: the kernel sends SIGHUP and returns errors.
    fn close(&mut self) {
        self.master = None;
        self.slave = None;
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Checks that line mode, echo and the previous screen are back.
    fn assert_restored(&self) {
        let modes = tcgetattr(self.slave.as_ref().unwrap()).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        let end = Instant::now() + LIMIT;
        let mut parser = self.shown.0.lock().unwrap();
        while parser.screen().alternate_screen() || parser.screen().hide_cursor() {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the terminal is not restored");
            parser = self.shown.1.wait_timeout(parser, left).unwrap().0;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cells(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap()
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// The text of the screen without the bars of histories, which change all the time.
fn text(parser: &vt100::Parser) -> String {
    let bare = parser
        .screen()
        .contents()
        .replace(|c| ('▁'..='█').contains(&c), " ");
    bare.lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

fn add_tubes(store: &Store) {
    store.domain(5, "db");
    store.domain(7, "web");
    store.domain(9, "db 5\x1b[2J\u{202e}");
    store.tube(7, 5, 0, ("4", "4"));
    store.tube(7, 5, 1, ("4", "4"));
    store.tube(9, 5, 0, ("5", "4"));
    let opened = common::ago(3630);
    store.write(&[
        ("/local/domain/5/data/tip/7/0/opened", OsStr::new(&opened)),
        (
            "/local/domain/7/data/nock/5/1/service",
            OsStr::new("a_20rather_20long_20name"),
        ),
        (
            "/local/domain/9/data/nock/5/0/service",
            OsStr::new("\x1b]0;owned\x07\x1b[H7:web"),
        ),
        (
            "/local/domain/9/data/stats/nock/5/0",
            OsStr::new("sent=\x1b[31m9"),
        ),
    ]);
}

fn busy(store: &Store) -> common::Publisher {
    store.publish(vec![
        Counters("/local/domain/7/data/stats/nock/5/0", 12_345, 45_600_000),
        Counters("/local/domain/5/data/stats/tip/7/0", 655, 400_000),
        Counters("/local/domain/7/data/stats/nock/5/1", 7, 700),
    ])
}

#[test]
fn the_table_in_three_sizes_and_its_keys() {
    let store = Store::hub();
    add_tubes(&store);
    let _busy = busy(&store);
    let mut top = Terminal::start(&store, 10, 120);
    top.await_screen("120 columns", |text| text == include_str!("golden/top-120"));
    top.resize(9, 80);
    top.await_screen("80 columns", |text| text == include_str!("golden/top-80"));
    top.resize(7, 40);
    top.await_screen("40 columns", |text| text == include_str!("golden/top-40"));
    for (rows, columns) in [(1, 1), (2, 9), (3, 200), (10, 120)] {
        top.resize(rows, columns);
    }
    top.await_screen("the table again", |text| {
        text == include_str!("golden/top-120")
    });
    let bars = top.shown.0.lock().unwrap().screen().contents();
    assert!(bars.contains('█'), "{bars}");

    // It holds a lease in each domain, and withdraws it at the end.
    let tree = store.tree();
    for domid in [5, 7, 9] {
        assert!(
            tree.contains(&format!(
                "/local/domain/{domid}/data/stats/watch = \"tubes "
            )),
            "{tree}"
        );
    }
    top.press("n/LONG\r");
    let one = top.await_screen("one row", |text| text.contains("filter: LONG (1)"));
    assert!(one.contains("7:web") && !one.contains("echo"), "{one}");
    top.press("/\x1b");
    top.await_screen("all rows", |text| {
        text.contains("sort: name") && text.contains("echo")
    });
    top.press("q");
    assert!(top.end().success());
    top.assert_restored();
    assert!(!store.tree().contains("stats/watch"));
}

#[test]
fn top_ends_on_a_signal_a_closed_terminal_or_a_lost_store() {
    let store = Store::xen();
    add_tubes(&store);
    let table = |text: &str| text.contains("NOCK") && text.contains("7:web");
    let mut top = Terminal::start(&store, 24, 80);
    top.await_screen("a table", table);
    top.signal(Signal::TERM);
    assert!(top.end().success());
    top.assert_restored();

    let mut top = Terminal::start(&store, 24, 80);
    top.await_screen("a table", table);
    top.press("\x03");
    assert!(top.end().success());
    top.assert_restored();

    let mut closed = Terminal::start(&store, 24, 80);
    closed.await_screen("a table", table);
    closed.close();
    closed.end();

    let mut top = Terminal::start(&store, 24, 80);
    top.await_screen("a table", table);
    drop(store);
    assert_eq!(top.end().code(), Some(1));
    top.assert_restored();
    top.await_screen("the reason", |text| {
        text.contains("tubes: the store is gone")
    });
}
