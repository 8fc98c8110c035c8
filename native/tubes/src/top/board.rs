//! The table of `tubes top`: rows, their order, which of them are shown, and what keys do. Knows no
//! terminal.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::feed::Look;
use crate::path::Id;
use crate::stats::meters::Traffic;

/// Seconds that a history goes back.
const HISTORY: usize = 60;

/// Longest filter.
const FILTER_MAX: usize = 40;

/// One tube, fit to be shown.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Its nock, by number and name.
    pub nock: String,
    /// Its tip.
    pub tip: String,
    /// Its service.
    pub service: String,
    /// Its number.
    pub tid: String,
    /// Where it stands, marked if something is wrong.
    pub state: String,
    /// Whether something is wrong.
    pub wrong: bool,
    /// Sizes of its rings.
    pub ring: String,
    /// For how long it has been there.
    pub age: Option<Duration>,
    /// What goes through, if its VMs say so.
    pub traffic: Option<Traffic>,
    /// Bytes per second, oldest first.
    pub history: VecDeque<f64>,
}

/// What rows are sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// Bytes per second.
    #[default]
    Bytes,
    /// Messages per second.
    Messages,
    /// Waits for room.
    Full,
    /// Wake-ups.
    Notifications,
    /// How long it has been there.
    Age,
    /// Who asks whom.
    Name,
}

const SORTS: [(char, Sort, &str); 6] = [
    ('b', Sort::Bytes, "bytes"),
    ('m', Sort::Messages, "messages"),
    ('w', Sort::Full, "waits"),
    ('l', Sort::Notifications, "bells"),
    ('a', Sort::Age, "age"),
    ('n', Sort::Name, "name"),
];

impl Sort {
    /// Its word.
    pub fn word(self) -> &'static str {
        SORTS
            .iter()
            .find(|(_, sort, _)| *sort == self)
            .map_or("", |(_, _, word)| word)
    }

    fn next(self) -> Sort {
        let at = SORTS.iter().position(|(_, sort, _)| *sort == self);
        SORTS[at.map_or(0, |at| (at + 1) % SORTS.len())].1
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Board {
    rows: BTreeMap<Id, Row>,
    /// Bytes per second of all tubes, oldest first.
    pub total: VecDeque<f64>,
    /// How many domains there are.
    pub domains: usize,
    /// Whether this is all, or our own domain's only.
    pub whole: bool,
    /// What was left out, and why.
    pub notes: Vec<String>,
    /// What it is sorted by.
    pub sort: Sort,
    /// The other way round.
    pub reverse: bool,
    /// What rows must contain.
    pub filter: String,
    /// Whether the filter is being written.
    pub writing: bool,
    /// Whether it stands still.
    pub paused: bool,
    /// Rows above the first that is shown.
    pub offset: usize,
    /// Rows that fit, as drawn last.
    pub page: usize,
    /// Whether anything has been seen yet.
    pub seen: bool,
}

impl Board {
    /// Takes a look in.
    pub fn update(&mut self, look: Look) {
        if self.paused {
            return;
        }
        let Look {
            snapshot,
            meters,
            time,
        } = look;
        let mut total = 0.0;
        let mut rows = BTreeMap::new();
        for (id, tube) in &snapshot.tubes {
            let wrong = !tube.findings().is_empty();
            let traffic = meters.traffic(*id);
            let mut history = self
                .rows
                .remove(id)
                .map(|row| row.history)
                .unwrap_or_default();
            let bytes = traffic.map_or(0.0, |traffic| traffic.bytes());
            remember(&mut history, bytes);
            total += bytes;
            let row = Row {
                nock: snapshot.label(id.nock),
                tip: snapshot.label(id.tip),
                service: tube.service(),
                tid: id.tid.to_string(),
                state: format!("{}{}", tube.stage().word(), if wrong { "!" } else { "" }),
                wrong,
                ring: tube.rings(),
                age: tube.age(time),
                traffic,
                history,
            };
            rows.insert(*id, row);
        }
        remember(&mut self.total, total);
        self.rows = rows;
        self.domains = snapshot.domains.len();
        self.whole = snapshot.whole;
        self.notes = snapshot.notes;
        self.seen = true;
        self.scroll(0);
    }

    /// How many tubes there are, and with how many something is wrong.
    pub fn counts(&self) -> (usize, usize) {
        let wrong = self.rows.values().filter(|row| row.wrong).count();
        (self.rows.len(), wrong)
    }

    /// What goes through all of them.
    pub fn traffic(&self) -> (f64, f64) {
        let all = self.rows.values().filter_map(|row| row.traffic);
        all.fold((0.0, 0.0), |(messages, bytes), traffic| {
            (messages + traffic.messages(), bytes + traffic.bytes())
        })
    }

    /// The rows that the filter lets through, in order.
    pub fn shown(&self) -> Vec<&Row> {
        let wanted = self.filter.to_lowercase();
        let mut rows: Vec<(&Id, &Row)> = self
            .rows
            .iter()
            .filter(|(_, row)| {
                let text = format!("{} {} {} {}", row.nock, row.tip, row.service, row.state);
                text.to_lowercase().contains(&wanted)
            })
            .collect();
        let key = |row: &Row| {
            let of = |rate: fn(&Traffic) -> f64| row.traffic.as_ref().map_or(-1.0, rate);
            match self.sort {
                Sort::Bytes => of(Traffic::bytes),
                Sort::Messages => of(Traffic::messages),
                Sort::Full => of(|traffic| traffic.full_waits),
                Sort::Notifications => of(|traffic| traffic.notifications),
                Sort::Age => row.age.map_or(-1.0, |age| age.as_secs_f64()),
                Sort::Name => 0.0,
            }
        };
        // Most first; the same stay in the order of their names.
        rows.sort_by(|(a, x), (b, y)| key(y).total_cmp(&key(x)).then(a.cmp(b)));
        if self.reverse {
            rows.reverse();
        }
        rows.into_iter().map(|(_, row)| row).collect()
    }

    /// Does what a key means. True: to be ended.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        if key.kind == KeyEventKind::Release {
            return false;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if control => return true,
            _ if self.writing => self.write(key.code),
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('/') => self.writing = true,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char(' ' | 'p') => self.paused = !self.paused,
            KeyCode::Up | KeyCode::Char('k') => self.scroll(-1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1),
            KeyCode::PageUp => self.scroll(-page(self.page)),
            KeyCode::PageDown => self.scroll(page(self.page)),
            KeyCode::Home => self.scroll(isize::MIN),
            KeyCode::End => self.scroll(isize::MAX),
            KeyCode::Char(c) => {
                if let Some((_, sort, _)) = SORTS.iter().find(|(key, ..)| *key == c) {
                    self.sort = *sort;
                }
            }
            _ => {}
        }
        false
    }

    fn write(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.writing = false,
            KeyCode::Esc => {
                self.writing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c @ ' '..='~') if self.filter.len() < FILTER_MAX => self.filter.push(c),
            _ => {}
        }
        self.scroll(0);
    }

    fn scroll(&mut self, by: isize) {
        let last = self.shown().len().saturating_sub(self.page.max(1));
        self.offset = self.offset.saturating_add_signed(by).min(last);
    }
}

fn page(rows: usize) -> isize {
    isize::try_from(rows.max(1)).unwrap_or(isize::MAX)
}

fn remember(history: &mut VecDeque<f64>, now: f64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(now);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        let mut board = Board::default();
        for (tid, bytes, service) in [(0, 5.0, "echo"), (1, 90.0, "chat"), (2, 7.0, "echo")] {
            let id = Id {
                nock: 7,
                tip: 5,
                tid,
            };
            let row = Row {
                service: service.into(),
                tid: tid.to_string(),
                traffic: Some(Traffic {
                    forth: 100.0 - bytes,
                    forth_bytes: bytes,
                    ..Traffic::default()
                }),
                ..Row::default()
            };
            board.rows.insert(id, row);
        }
        board.page = 2;
        board
    }

    fn press(board: &mut Board, keys: &str) -> bool {
        let mut ended = false;
        for c in keys.chars() {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '<' => KeyCode::Backspace,
                'v' => KeyCode::Down,
                c => KeyCode::Char(c),
            };
            ended = board.key(KeyEvent::new(code, KeyModifiers::NONE));
        }
        ended
    }

    fn tids(board: &Board) -> String {
        board.shown().iter().map(|row| row.tid.as_str()).collect()
    }

    #[test]
    fn order() {
        let mut board = board();
        assert_eq!(tids(&board), "120");
        for (keys, order) in [
            ("r", "021"),
            ("rm", "021"),
            ("n", "012"),
            ("s", "120"),
            ("s", "021"),
        ] {
            press(&mut board, keys);
            assert_eq!(tids(&board), order, "{keys}");
        }
        assert_eq!(board.sort.word(), "messages");
    }

    #[test]
    fn a_filter_is_written_and_no_key_is_a_command_meanwhile() {
        let mut board = board();
        assert!(!press(&mut board, "/qechO<o\n"));
        assert_eq!(
            (tids(&board), board.filter.as_str()),
            (String::new(), "qecho")
        );
        press(&mut board, "/\x1b/ECHO\n");
        assert_eq!(tids(&board), "20");
        assert!(press(&mut board, "q"));
    }

    #[test]
    fn the_end_of_the_rows_is_the_end_of_scrolling() {
        let mut board = board();
        press(&mut board, "vvvv");
        assert_eq!(board.offset, 1);
        press(&mut board, "/chat\n");
        assert_eq!(board.offset, 0);
    }
}
