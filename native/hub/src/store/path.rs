//! Paths of nodes.

use std::borrow::Borrow;
use std::sync::Arc;

use super::error::Error;

/// The longest path of a special node (`@...`), in bytes.
const SPECIAL_MAX: usize = 2048;

/// The absolute path of a node or a special node. Cheap to clone.
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

    /// A path of the store's own, unchecked.
    pub(super) fn own(text: &str) -> Path {
        Path(Arc::from(text.as_bytes()))
    }

    /// The path that a client names, relative to its domain's `home` or absolute.
    pub fn resolve(home: &str, name: &[u8], limit: usize) -> Result<Path, Error> {
        let path = Path::absolute(home, name);
        if is_legal(path.bytes(), limit) {
            Ok(path)
        } else {
            Err(Error::Invalid)
        }
    }

    /// The path that a client watches. A special node need not exist.
    pub fn resolve_watch(home: &str, name: &[u8], limit: usize) -> Result<Path, Error> {
        if name.starts_with(b"@") && name.len() <= SPECIAL_MAX {
            return Ok(Path(Arc::from(name)));
        }
        Path::resolve(home, name, limit)
    }

    /// An unchecked absolute path, to compare with checked ones.
    pub fn absolute(home: &str, name: &[u8]) -> Path {
        match name.first() {
            Some(b'/' | b'@') => Path(Arc::from(name)),
            _ => Path([home.as_bytes(), b"/", name].concat().into()),
        }
    }

    /// The path as bytes.
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

    /// The parent; the root is its own parent.
    pub fn parent(&self) -> Path {
        match self.last_slash() {
            0 => Path::root(),
            slash => Path(Arc::from(&self.0[..slash])),
        }
    }

    /// The child with this name.
    pub fn child(&self, name: &[u8]) -> Path {
        let above = if self.is_root() { b"" } else { self.bytes() };
        Path([above, b"/", name].concat().into())
    }

    fn last_slash(&self) -> usize {
        self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0)
    }
}

/// The longest path that is equal to or an ancestor of both `a` and `b`, which must be absolute.
pub fn common_ancestor<'a>(a: &'a [u8], b: &[u8]) -> &'a [u8] {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let ends = |name: &[u8]| name.get(same).is_none_or(|&byte| byte == b'/');
    if same > 1 && ends(a) && ends(b) {
        &a[..same]
    } else {
        parent(&a[..same.max(1)])
    }
}

/// The parent of an absolute path; the root for the root.
pub fn parent(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|&byte| byte == b'/') {
        Some(slash) if slash > 0 => &name[..slash],
        _ => &name[..1],
    }
}

/// Checks the rules of C xenstored: absolute, no trailing slash, no double slash, a limited set of
/// characters, at most `limit` bytes without a leading `/local/domain/<domid>/`.
fn is_legal(name: &[u8], limit: usize) -> bool {
    let slashes = name == b"/"
        || (name.starts_with(b"/")
            && !name.ends_with(b"/")
            && !name.windows(2).any(|pair| pair == b"//"));
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(byte);
    slashes && name.len() - domain_prefix(name) <= limit && name.iter().all(legal)
}

/// Bytes of a leading `/local/domain/<domid>/`, 0 without one. The domid is parsed as by `%5u`: at
/// most five characters, with an optional sign.
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
    fn paths_are_checked_as_in_c() {
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
    fn a_domain_prefix_does_not_count_towards_the_length() {
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
    fn relative_paths_are_below_the_home() {
        let path = Path::resolve("/local/domain/7", b"data/tube", 2048).unwrap();
        assert_eq!(path.bytes(), b"/local/domain/7/data/tube");
        assert_eq!(path.base(), b"tube");
        assert_eq!(path.parent().bytes(), b"/local/domain/7/data");
        assert_eq!(Path::own("/a").parent(), Path::root());
        assert_eq!(Path::root().child(b"a"), Path::own("/a"));
        assert_eq!(Path::own("/a").child(b"b"), Path::own("/a/b"));
    }

    #[test]
    fn special_nodes_can_only_be_watched() {
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
