//! The sort order of the table of `tubes top`.

use super::row::Row;
use crate::stats::meters::Traffic;

/// What the rows are sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// Bytes per second.
    #[default]
    Bytes,
    /// Messages per second.
    Messages,
    /// Waits for space in the ring.
    Full,
    /// Notifications per second.
    Notifications,
    /// Age.
    Age,
    /// Domains of nock and tip, then number.
    Name,
}

/// The keys that select the orders, and their names on the screen.
const SORTS: [(char, Sort, &str); 6] = [
    ('b', Sort::Bytes, "bytes"),
    ('m', Sort::Messages, "messages"),
    ('w', Sort::Full, "waits"),
    ('l', Sort::Notifications, "bells"),
    ('a', Sort::Age, "age"),
    ('n', Sort::Name, "name"),
];

impl Sort {
    /// Its name on the screen.
    pub fn word(self) -> &'static str {
        SORTS
            .iter()
            .find(|(_, sort, _)| *sort == self)
            .map_or("", |(_, _, word)| word)
    }

    /// The order after this one.
    pub fn next(self) -> Sort {
        let at = SORTS.iter().position(|(_, sort, _)| *sort == self);
        SORTS[at.map_or(0, |at| (at + 1) % SORTS.len())].1
    }

    /// The order that this key selects.
    pub fn of_key(c: char) -> Option<Sort> {
        let found = SORTS.iter().find(|(key, ..)| *key == c);
        found.map(|(_, sort, _)| *sort)
    }

    /// What rows are ordered by: the highest first.
    pub fn value(self, row: &Row) -> f64 {
        let of = |rate: fn(&Traffic) -> f64| row.traffic.as_ref().map_or(-1.0, rate);
        match self {
            Sort::Bytes => of(Traffic::bytes),
            Sort::Messages => of(Traffic::messages),
            Sort::Full => of(|traffic| traffic.full_waits),
            Sort::Notifications => of(|traffic| traffic.notifications),
            Sort::Age => row.age.map_or(-1.0, |age| age.as_secs_f64()),
            Sort::Name => 0.0,
        }
    }
}
