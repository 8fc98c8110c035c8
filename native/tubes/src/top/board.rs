//! The table of `tubes top`: its rows, their order, the filter, and the effect of keys. It uses no
//! terminal.

use std::collections::{BTreeMap, VecDeque};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::feed::Update;
use super::row::{Row, remember};
use super::sort::Sort;
use crate::path::Id;

/// Maximum length of the filter.
const FILTER_MAX: usize = 40;

/// The state of the table.
#[derive(Debug, Default)]
pub struct Board {
    rows: BTreeMap<Id, Row>,
    /// Bytes per second of all tubes, oldest first.
    pub total: VecDeque<f64>,
    /// Whether all domains are visible, or only our own.
    pub whole: bool,
    /// What was left out and why.
    pub notes: Vec<String>,
    /// The sort order.
    pub sort: Sort,
    /// Whether the order is reversed.
    pub reverse: bool,
    /// The text that rows must contain.
    pub filter: String,
    /// Whether the user is typing the filter.
    pub typing: bool,
    /// Whether updates are ignored.
    pub paused: bool,
    /// Number of rows above the first visible one.
    pub offset: usize,
    /// Number of rows that fit on the screen.
    pub page: usize,
    /// Whether there has been an update.
    pub filled: bool,
}

impl Board {
    /// Replaces the rows.
    pub fn update(&mut self, update: Update) {
        if self.paused {
            return;
        }
        let Update {
            snapshot,
            meters,
            time,
        } = update;
        let mut total = 0.0;
        let mut rows = BTreeMap::new();
        for (id, tube) in &snapshot.tubes {
            let traffic = meters.traffic(*id);
            let history = self
                .rows
                .remove(id)
                .map(|row| row.history)
                .unwrap_or_default();
            total += traffic.map_or(0.0, |traffic| traffic.bytes());
            let row = Row::new(&snapshot, tube, traffic, time, history);
            rows.insert(*id, row);
        }
        remember(&mut self.total, total);
        self.rows = rows;
        self.whole = snapshot.whole;
        self.notes = snapshot.notes;
        self.filled = true;
        self.scroll(0);
    }

    /// The number of tubes, and of those with findings.
    pub fn counts(&self) -> (usize, usize) {
        let wrong = self.rows.values().filter(|row| row.wrong).count();
        (self.rows.len(), wrong)
    }

    /// Messages and bytes per second of all tubes.
    pub fn traffic(&self) -> (f64, f64) {
        let all = self.rows.values().filter_map(|row| row.traffic);
        all.fold((0.0, 0.0), |(messages, bytes), traffic| {
            (messages + traffic.messages(), bytes + traffic.bytes())
        })
    }

    /// The rows that match the filter, in order.
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
        // Highest first; equal rows are ordered by name.
        let value = |row| self.sort.value(row);
        rows.sort_by(|(a, x), (b, y)| value(y).total_cmp(&value(x)).then(a.cmp(b)));
        if self.reverse {
            rows.reverse();
        }
        rows.into_iter().map(|(_, row)| row).collect()
    }

    /// Handles a key. Returns true if it ends the program.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        if key.kind == KeyEventKind::Release {
            return false;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if control => return true,
            _ if self.typing => self.type_filter(key.code),
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('/') => self.typing = true,
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
                if let Some(sort) = Sort::of_key(c) {
                    self.sort = sort;
                }
            }
            _ => {}
        }
        false
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::meters::Traffic;

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
    fn keys_change_the_order() {
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
    fn keys_typed_into_the_filter_are_not_commands() {
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
    fn scrolling_stops_at_the_last_row() {
        let mut board = board();
        press(&mut board, "vvvv");
        assert_eq!(board.offset, 1);
        press(&mut board, "/chat\n");
        assert_eq!(board.offset, 0);
    }
}
