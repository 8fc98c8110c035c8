//! Watches.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::path::{Path, common_ancestor, parent};

/// Identifies a connection to the store. Ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub(super) u64);

/// Chosen by the client and returned with each event: any bytes without NUL.
pub type Token = Arc<[u8]>;

/// Which watches a change reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those on exactly this path: for nodes removed with an ancestor, and for special nodes.
    Exact,
    /// Those on this path or an ancestor.
    Above,
}

#[derive(Clone, Copy)]
struct Watch {
    /// Order of registration.
    number: u64,
    /// Bytes of the path to omit in events, if the client gave a path relative to its domain's
    /// home.
    relative: Option<usize>,
}

/// A watch that a change reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The connection that set it.
    pub conn: ConnId,
    number: u64,
    /// Its token.
    pub token: Token,
    relative: Option<usize>,
}

impl Hit {
    /// The payload of the event about `path`, relative if the watch is.
    pub fn event(&self, path: &[u8]) -> Vec<u8> {
        event(path, &self.token, self.relative)
    }
}

/// All watches, indexed by path and by connection.
#[derive(Default)]
pub struct Watches {
    by_path: BTreeMap<Path, BTreeMap<(ConnId, Token), Watch>>,
    by_conn: BTreeMap<(ConnId, u64), (Path, Token)>,
    registered: u64,
}

impl Watches {
    /// Whether a connection has this watch.
    pub fn contains(&self, conn: ConnId, path: &Path, token: &[u8]) -> bool {
        let key = (conn, Token::from(token));
        self.by_path
            .get(path)
            .is_some_and(|watches| watches.contains_key(&key))
    }

    /// Adds a watch that does not exist yet. Returns the payload of its initial event.
    pub fn add(
        &mut self,
        conn: ConnId,
        path: Path,
        token: Token,
        relative: Option<usize>,
    ) -> Vec<u8> {
        self.registered += 1;
        let number = self.registered;
        let initial_event = event(path.bytes(), &token, relative);
        self.by_conn
            .insert((conn, number), (path.clone(), token.clone()));
        self.by_path
            .entry(path)
            .or_default()
            .insert((conn, token), Watch { number, relative });
        initial_event
    }

    /// Removes a watch; false if it does not exist.
    pub fn remove(&mut self, conn: ConnId, path: &Path, token: &[u8]) -> bool {
        let Some(watches) = self.by_path.get_mut(path) else {
            return false;
        };
        let Some(watch) = watches.remove(&(conn, Token::from(token))) else {
            return false;
        };
        if watches.is_empty() {
            self.by_path.remove(path);
        }
        self.by_conn.remove(&(conn, watch.number));
        true
    }

    /// The watches of a connection, in the order of registration.
    pub fn of(&self, conn: ConnId) -> Vec<(Path, Token)> {
        self.by_conn
            .range((conn, 0)..=(conn, u64::MAX))
            .map(|(_, watch)| watch.clone())
            .collect()
    }

    /// The watches that a change of `path` reaches, of those connections that `may_know`: per
    /// connection, in the order of registration.
    pub fn hits(&self, path: &[u8], reach: Reach, may_know: impl Fn(ConnId) -> bool) -> Vec<Hit> {
        let mut hits = Vec::new();
        match reach {
            Reach::Exact => self.on(path, &may_know, &mut hits),
            Reach::Above => self.above(path, &may_know, &mut hits),
        }
        hits.sort_unstable_by_key(|hit| (hit.conn, hit.number));
        hits
    }

    /// Calls `may_know` once per connection, so that many watches of a connection without
    /// permission cost little.
    fn on(&self, path: &[u8], may_know: &impl Fn(ConnId) -> bool, hits: &mut Vec<Hit>) {
        let Some(watches) = self.by_path.get(path) else {
            return;
        };
        let none = Token::from(b"".as_slice());
        let mut next = ConnId(0);
        while let Some(((conn, _), _)) = watches.range((next, none.clone())..).next() {
            next = ConnId(conn.0 + 1);
            if may_know(*conn) {
                let its = watches.range((*conn, none.clone())..(next, none.clone()));
                hits.extend(its.map(|((conn, token), watch)| Hit {
                    conn: *conn,
                    number: watch.number,
                    token: token.clone(),
                    relative: watch.relative,
                }));
            }
        }
    }

    /// Every watched ancestor of `path` is a prefix of the greatest watched path that does not sort
    /// after `path`. So each step jumps to the common ancestor of the two, without trying every
    /// ancestor.
    fn above(&self, path: &[u8], may_know: &impl Fn(ConnId) -> bool, hits: &mut Vec<Hit>) {
        let mut path = path;
        loop {
            let range = (Bound::Unbounded, Bound::Included(path));
            let Some((nearest, _)) = self.by_path.range::<[u8], _>(range).next_back() else {
                return;
            };
            if nearest.bytes() != path {
                let common = common_ancestor(path, nearest.bytes());
                if common.len() < path.len() {
                    path = common;
                    continue;
                }
            }
            self.on(path, may_know, hits);
            if path.len() == 1 {
                return;
            }
            path = parent(path);
        }
    }
}

/// Encodes path and token, each with its NUL.
fn event(path: &[u8], token: &[u8], relative: Option<usize>) -> Vec<u8> {
    let path = match relative {
        Some(home) => path[home..].strip_prefix(b"/").unwrap_or(&path[home..]),
        None => path,
    };
    [path, b"\0", token, b"\0"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(watches: &mut Watches, conn: u64, path: &str, token: &str) {
        watches.add(
            ConnId(conn),
            Path::own(path),
            Token::from(token.as_bytes()),
            None,
        );
    }

    fn tokens(watches: &Watches, path: &str, reach: Reach) -> String {
        let hits = watches.hits(path.as_bytes(), reach, |conn| conn != ConnId(9));
        hits.iter()
            .map(|hit| String::from_utf8_lossy(&hit.token).into_owned())
            .collect()
    }

    #[test]
    fn a_change_reaches_watches_on_ancestors() {
        let mut watches = Watches::default();
        for (token, path) in [
            ("1", "/"),
            ("2", "/a"),
            ("3", "/a/b"),
            ("4", "/a/b/c"),
            ("5", "/a/bc"),
            ("6", "/a-b"),
            ("7", "/b"),
            ("8", "@x"),
        ] {
            add(&mut watches, 1, path, token);
        }
        for (path, expected) in [
            ("/a/b/c/d", "1234"),
            ("/a/b", "123"),
            ("/a/bb/c", "12"),
            ("/a/bc/d", "125"),
            ("/a-b/c", "16"),
            ("/a", "12"),
            ("/c/d", "1"),
            ("/", "1"),
        ] {
            assert_eq!(tokens(&watches, path, Reach::Above), expected, "{path}");
        }
        assert_eq!(tokens(&watches, "/a/b", Reach::Exact), "3");
        assert_eq!(tokens(&watches, "@x", Reach::Exact), "8");
        assert_eq!(tokens(&watches, "/a/x", Reach::Exact), "");
    }

    #[test]
    fn hits_are_per_connection_in_the_order_of_registration() {
        let mut watches = Watches::default();
        add(&mut watches, 2, "/a", "3");
        add(&mut watches, 1, "/a/b", "1");
        add(&mut watches, 1, "/", "2");
        add(&mut watches, 2, "/a/b", "4");
        add(&mut watches, 9, "/a/b", "may not know");
        assert_eq!(tokens(&watches, "/a/b", Reach::Above), "1234");
    }

    #[test]
    fn removing_a_watch_updates_both_indexes() {
        let mut watches = Watches::default();
        add(&mut watches, 1, "/a", "t");
        add(&mut watches, 2, "/a", "t");
        assert!(watches.contains(ConnId(1), &Path::own("/a"), b"t"));
        assert!(watches.remove(ConnId(1), &Path::own("/a"), b"t"));
        assert!(!watches.remove(ConnId(1), &Path::own("/a"), b"t"));
        assert!(watches.of(ConnId(1)).is_empty());
        assert_eq!(watches.of(ConnId(2)).len(), 1);
        assert!(watches.remove(ConnId(2), &Path::own("/a"), b"t"));
        assert!(watches.by_path.is_empty() && watches.by_conn.is_empty());
    }

    #[test]
    fn events_are_relative_if_the_watch_is() {
        let home = Some("/local/domain/7".len());
        assert_eq!(event(b"/local/domain/7/a/b", b"t", home), b"a/b\0t\0");
        assert_eq!(event(b"/local/domain/7", b"t", home), b"\0t\0");
        assert_eq!(
            event(b"/local/domain/7/a/b", b"", None),
            b"/local/domain/7/a/b\0\0"
        );
    }
}
