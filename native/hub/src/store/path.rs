//! Names of nodes: absolute, legal, shared between the places that remember them.

use std::borrow::Borrow;
use std::sync::Arc;

use super::error::Error;

/// The longest name of a special watch (`@...`), in bytes.
const SPECIAL_MAX: usize = 2048;

/// The absolute name of a node, or of something that can be watched. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Arc<[u8]>);

impl Borrow<[u8]> for Path {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Path {
    /// The root of the tree.
    pub fn root() -> Path {
        Path(Arc::from(*b"/"))
    }

    /// A name that the store itself made up.
    pub(super) fn own(text: &str) -> Path {
        Path(Arc::from(text.as_bytes()))
    }

    /// The node that a client means: relative names are taken from its domain's `home`.
    pub fn resolve(home: &str, name: &[u8], limit: usize) -> Result<Path, Error> {
        let path = Path::absolute(home, name);
        if is_legal(path.bytes(), limit) {
            Ok(path)
        } else {
            Err(Error::Invalid)
        }
    }

    /// What a client wants to watch. A special name need not be one that ever fires.
    pub fn resolve_watch(home: &str, name: &[u8], limit: usize) -> Result<Path, Error> {
        if name.starts_with(b"@") && name.len() <= SPECIAL_MAX {
            return Ok(Path(Arc::from(name)));
        }
        Path::resolve(home, name, limit)
    }

    /// An absolute name without any check, to be compared with names that were checked.
    pub fn absolute(home: &str, name: &[u8]) -> Path {
        match name.first() {
            Some(b'/' | b'@') => Path(Arc::from(name)),
            _ => Path([home.as_bytes(), b"/", name].concat().into()),
        }
    }

    /// The name as the protocol spells it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.bytes() == b"/"
    }

    /// The last component; empty for the root.
    pub fn base(&self) -> &[u8] {
        &self.0[self.last_slash() + 1..]
    }

    /// The node above; the root is above itself.
    pub fn parent(&self) -> Path {
        match self.last_slash() {
            0 => Path::root(),
            slash => Path(Arc::from(&self.0[..slash])),
        }
    }

    /// The node called `name` below this one.
    pub fn child(&self, name: &[u8]) -> Path {
        let above = if self.is_root() { b"" } else { self.bytes() };
        Path([above, b"/", name].concat().into())
    }

    fn last_slash(&self) -> usize {
        self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0)
    }
}

/// The longest name that is equal to `a` and `b`, or above both. Both must be absolute names.
pub fn common_ancestor<'a>(a: &'a [u8], b: &[u8]) -> &'a [u8] {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let ends = |name: &[u8]| name.get(same).is_none_or(|&byte| byte == b'/');
    if same > 1 && ends(a) && ends(b) {
        &a[..same]
    } else {
        parent(&a[..same.max(1)])
    }
}

/// The name above `name`, which must be absolute; the root for the root.
pub fn parent(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|&byte| byte == b'/') {
        Some(slash) if slash > 0 => &name[..slash],
        _ => &name[..1],
    }
}

/// The rules of C xenstored: absolute, no slash at the end, no double slash, few characters, and at
/// most `limit` bytes, to which a leading `/local/domain/<domid>/` does not count.
fn is_legal(name: &[u8], limit: usize) -> bool {
    let slashes = name == b"/"
        || (name.starts_with(b"/")
            && !name.ends_with(b"/")
            && !name.windows(2).any(|pair| pair == b"//"));
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(byte);
    slashes && name.len() - domain_prefix(name) <= limit && name.iter().all(legal)
}

/// Bytes of a leading `/local/domain/<domid>/`, 0 without one. Like `%5u`: at most five characters,
/// one of them maybe a sign.
fn domain_prefix(name: &[u8]) -> usize {
    const HOMES: &[u8] = b"/local/domain/";
    let Some(rest) = name.strip_prefix(HOMES) else {
        return 0;
    };
    let field = &rest[..rest.len().min(5)];
    let sign = usize::from(field.first() == Some(&b'-'));
    let digits = field[sign..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let end = sign + digits;
    if digits > 0 && rest.get(end) == Some(&b'/') {
        HOMES.len() + end + 1
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legal(name: &str) -> bool {
        Path::resolve("/local/domain/7", name.as_bytes(), 2048).is_ok()
    }

    #[test]
    fn names_are_checked_as_in_c() {
        for good in ["/", "/a", "/a/b-c_d@e", "a", "a/b", "0"] {
            assert!(legal(good), "{good}");
        }
        for bad in [
            "",
            "/a/",
            "//",
            "/a//b",
            "a/",
            "/a b",
            "/ä",
            "/a.b",
            "@introduceDomain",
            "a\n",
        ] {
            assert!(!legal(bad), "{bad}");
        }
    }

    #[test]
    fn the_prefix_of_a_domain_does_not_count() {
        let long = "x".repeat(2048);
        assert!(legal(&long));
        assert!(!legal(&format!("{long}x")));
        assert!(legal(&format!("/{}", &long[1..])));
        assert!(!legal(&format!("/{long}")));
        assert!(legal(&format!("/local/domain/12345/{long}")));
        assert!(!legal(&format!("/local/domain/123456/{long}")));
        assert!(!legal(&format!("/local/domain/x/{long}")));
    }

    #[test]
    fn relative_names_are_below_the_home() {
        let path = Path::resolve("/local/domain/7", b"data/tube", 2048).unwrap();
        assert_eq!(path.bytes(), b"/local/domain/7/data/tube");
        assert_eq!(path.base(), b"tube");
        assert_eq!(path.parent().bytes(), b"/local/domain/7/data");
        assert_eq!(Path::own("/a").parent(), Path::root());
        assert_eq!(Path::root().child(b"a"), Path::own("/a"));
        assert_eq!(Path::own("/a").child(b"b"), Path::own("/a/b"));
    }

    #[test]
    fn special_names_are_for_watches_only() {
        assert!(Path::resolve_watch("/local/domain/7", b"@anything at all", 2048).is_ok());
        assert!(Path::resolve_watch("/local/domain/7", &[b'@'; 2049], 2048).is_err());
        assert!(Path::resolve_watch("/local/domain/7", b"/a/", 2048).is_err());
    }

    #[test]
    fn common_ancestors_end_at_a_component() {
        let common =
            |a: &'static str, b: &str| common_ancestor(a.as_bytes(), b.as_bytes()).to_vec();
        assert_eq!(common("/a/b", "/a/c"), b"/a");
        assert_eq!(common("/a/bc", "/a/bd"), b"/a");
        assert_eq!(common("/a/b", "/a/b/c"), b"/a/b");
        assert_eq!(common("/a/b/c", "/a/b"), b"/a/b");
        assert_eq!(common("/a/b", "/a/bc"), b"/a");
        assert_eq!(common("/a", "/b"), b"/");
        assert_eq!(common("/a", "/"), b"/");
        assert_eq!(common("/", "/"), b"/");
        assert_eq!(common("/a", "/a"), b"/a");
    }
}
