//! Permission lists.
//!
//! The first permission names the owner, who has all rights; its letter gives the rights of every
//! domain that is not listed. Only a node's own list counts, not those of its ancestors.

use super::codec::strtol;
use super::error::Error;

/// A domain as permission lists name it: any 32-bit number, whether or not the domain exists.
pub type Domid = u32;

/// A set of [`Rights::READ`], [`Rights::WRITE`] and [`Rights::OWNER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// Nothing.
    pub const NONE: Rights = Rights(0);
    /// Read the value, the children and the list itself.
    pub const READ: Rights = Rights(1);
    /// Write the value, create nodes below, remove the node.
    pub const WRITE: Rights = Rights(2);
    /// Change the list.
    pub const OWNER: Rights = Rights(4);
    /// Everything.
    pub const ALL: Rights = Rights(7);

    /// The union of both sets.
    pub const fn union(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }

    /// Whether every right of `other` is in this set.
    pub fn contains(self, other: Rights) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any right of `other` is in this set.
    pub fn intersects(self, other: Rights) -> bool {
        self.0 & other.0 != 0
    }
}

/// On whose behalf the store is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The domain of the connection.
    pub domid: Domid,
    /// A domain whose rights it has too (SET_TARGET), as a device model has those of its guest.
    pub target: Option<Domid>,
}

impl Subject {
    /// Domain 0, and the store itself.
    pub const PRIVILEGED: Subject = Subject {
        domid: 0,
        target: None,
    };

    /// Whether permissions and quotas do not apply.
    pub fn is_privileged(self) -> bool {
        self.domid == 0
    }

    fn is(self, domid: Domid) -> bool {
        self.domid == domid || self.target == Some(domid)
    }
}

/// One permission of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The domain that has it.
    pub domid: Domid,
    /// The meaning of its letter: READ, WRITE, both or none.
    pub rights: Rights,
    /// The domain did not exist when the permission was written, or has ended. GET_PERMS still
    /// shows it, but it grants nothing, not even to a later domain with that number.
    pub ignored: bool,
}

impl Permission {
    /// A permission for an existing domain.
    pub const fn new(rights: Rights, domid: Domid) -> Permission {
        Permission {
            domid,
            rights,
            ignored: false,
        }
    }

    fn parse(text: &[u8]) -> Option<Permission> {
        let (letter, number) = text.split_first()?;
        let rights = match letter {
            b'n' => Rights::NONE,
            b'r' => Rights::READ,
            b'w' => Rights::WRITE,
            b'b' => Rights::READ.union(Rights::WRITE),
            _ => return None,
        };
        Some(Permission::new(rights, strtol(number)?))
    }

    fn letter(self) -> char {
        match (
            self.rights.contains(Rights::READ),
            self.rights.contains(Rights::WRITE),
        ) {
            (false, false) => 'n',
            (true, false) => 'r',
            (false, true) => 'w',
            (true, true) => 'b',
        }
    }
}

/// A permission list, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Perms(Vec<Permission>);

impl Perms {
    /// A list of the owner's permission (whose letter is the default) and further permissions.
    pub fn new(owner: Permission, others: &[Permission]) -> Perms {
        Perms([&[owner], others].concat())
    }

    /// Parses the strings of a SET_PERMS request. EINVAL if there is none, or one is malformed.
    pub fn parse<'a>(permissions: impl Iterator<Item = &'a [u8]>) -> Result<Perms, Error> {
        let permissions: Option<Vec<Permission>> = permissions.map(Permission::parse).collect();
        match permissions {
            Some(permissions) if !permissions.is_empty() => Ok(Perms(permissions)),
            _ => Err(Error::Invalid),
        }
    }

    /// The payload of a GET_PERMS reply. A domid above `i32::MAX` is printed negative, as C
    /// xenstored prints it.
    pub fn encode(&self) -> Vec<u8> {
        let strings = self
            .0
            .iter()
            .map(|permission| format!("{}{}\0", permission.letter(), permission.domid as i32));
        strings.collect::<String>().into_bytes()
    }

    /// Number of permissions.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The owner.
    pub fn owner(&self) -> Domid {
        self.0[0].domid
    }

    /// Makes `domid` the owner. The letter stays.
    pub fn set_owner(&mut self, domid: Domid) {
        self.0[0].domid = domid;
    }

    /// Whether the owner did not exist when the list was written.
    pub fn owner_is_ignored(&self) -> bool {
        self.0[0].ignored
    }

    /// Marks every permission whose domain is not `valid` as ignored; the owner's only with
    /// `include_owner`.
    pub fn ignore_invalid(&mut self, include_owner: bool, valid: impl Fn(Domid) -> bool) {
        for permission in self.0.iter_mut().skip(usize::from(!include_owner)) {
            permission.ignored |= !valid(permission.domid);
        }
    }

    /// Removes a domain from the list. Domain 0 becomes the owner if the removed domain was.
    pub fn remove(&mut self, domid: Domid) {
        if self.owner() == domid {
            self.set_owner(0);
        }
        let owner = self.0[0];
        self.0.retain(|permission| permission.domid != domid);
        if self.0.first() != Some(&owner) {
            self.0.insert(0, owner);
        }
    }

    /// The rights of `subject`. Permissions other than the owner's count only if their domain is
    /// `valid`.
    pub fn rights(&self, subject: Subject, valid: impl Fn(Domid) -> bool) -> Rights {
        if subject.is_privileged() || subject.is(self.owner()) {
            return Rights::ALL;
        }
        let listed = |permission: &&Permission| {
            !permission.ignored && subject.is(permission.domid) && valid(permission.domid)
        };
        self.0[1..].iter().find(listed).unwrap_or(&self.0[0]).rights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn perms(text: &str) -> Perms {
        Perms::parse(text.split(' ').map(str::as_bytes)).unwrap()
    }

    fn guest(domid: Domid) -> Subject {
        Subject {
            domid,
            target: None,
        }
    }

    #[test]
    fn the_first_permission_is_owner_and_default() {
        let list = perms("r1 n2 b3 w4");
        let rights = |domid| list.rights(guest(domid), |_| true);
        assert_eq!(rights(1), Rights::ALL);
        assert_eq!(rights(2), Rights::NONE);
        assert_eq!(rights(3), Rights::READ.union(Rights::WRITE));
        assert_eq!(rights(4), Rights::WRITE);
        assert_eq!(rights(5), Rights::READ);
        assert_eq!(rights(0), Rights::ALL);
    }

    #[test]
    fn the_first_permission_for_a_domain_counts() {
        assert_eq!(perms("n1 r2 w2").rights(guest(2), |_| true), Rights::READ);
    }

    #[test]
    fn permissions_for_missing_domains_grant_nothing() {
        assert_eq!(
            perms("n1 b2").rights(guest(2), |domid| domid != 2),
            Rights::NONE
        );
        let mut list = perms("n1 b2 r3");
        list.ignore_invalid(false, |domid| domid == 3);
        assert_eq!(list.rights(guest(2), |_| true), Rights::NONE);
        assert_eq!(list.rights(guest(3), |_| true), Rights::READ);
        assert!(!list.owner_is_ignored());
        assert_eq!(list.encode(), b"n1\0b2\0r3\0");
    }

    #[test]
    fn a_device_model_has_the_rights_of_its_target() {
        let model = Subject {
            domid: 5,
            target: Some(1),
        };
        assert_eq!(perms("n1").rights(model, |_| true), Rights::ALL);
        assert_eq!(perms("n2 r1").rights(model, |_| true), Rights::READ);
    }

    #[test]
    fn lists_parse_and_print_as_in_c() {
        assert_eq!(perms("n0x10 b010 w-1").encode(), b"n16\0b8\0w-1\0");
        for bad in [b"".as_slice(), b"n", b"x1", b"N1", b"r1 ", b"rr1"] {
            assert_eq!(Perms::parse([bad].into_iter()), Err(Error::Invalid));
        }
        assert_eq!(Perms::parse(std::iter::empty()), Err(Error::Invalid));
    }

    #[test]
    fn removing_a_domain_removes_its_permissions() {
        let mut list = perms("r1 b2 w1 n3");
        list.remove(1);
        assert_eq!(list.encode(), b"r0\0b2\0n3\0");
        list.remove(0);
        assert_eq!(list.encode(), b"r0\0b2\0n3\0");
    }
}
