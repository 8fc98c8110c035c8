//! Operations on domains, most of them for the toolstack in domain 0.

use super::access::Access;
use super::codec::{atoi, one_string, strings};
use super::domain::{FIRST_RESERVED, INTRODUCE_DOMAIN, home};
use super::error::{Error, OK, Reply};
use super::perms::Domid;
use super::watch::Reach;

/// The requesting domain (`DOMID_SELF`).
const DOMID_SELF: Domid = 0x7FF0;

/// Replies for any number, whether or not the domain exists.
pub fn domain_path(payload: &[u8]) -> Reply {
    let domid = atoi(one_string(payload).ok_or(Error::Invalid)?);
    Ok(format!("{}\0", home(domid)).into_bytes())
}

impl Access<'_> {
    /// Whether a domain is introduced. True for `DOMID_SELF`.
    pub fn is_introduced(&mut self, payload: &[u8]) -> Reply {
        let domid = atoi(one_string(payload).ok_or(Error::Invalid)?);
        let known = domid == DOMID_SELF || self.store.domains.contains(domid);
        Ok(if known {
            b"T\0".to_vec()
        } else {
            b"F\0".to_vec()
        })
    }

    /// Takes domid, frame number and event channel, of which only the domid matters here. The
    /// domain gets no nodes. EISCONN for a hosted domain.
    pub fn introduce(&mut self, payload: &[u8]) -> Reply {
        let parts: Vec<&[u8]> = strings(payload).collect();
        let [domid, _, port, ..] = parts[..] else {
            return Err(Error::Invalid);
        };
        let (domid, port) = (atoi(domid), atoi(port));
        if port == 0 || domid >= FIRST_RESERVED {
            return Err(Error::Invalid);
        }
        if self.store.domains.is_hosted(domid) {
            return Err(Error::Connected);
        }
        if self.store.add_domain(domid, false) {
            self.store.fire(INTRODUCE_DOMAIN, None, Reach::Exact, None);
        }
        Ok(OK.to_vec())
    }

    /// The domain that a string names. EINVAL for domain 0, ENOENT if the domain does not exist.
    pub fn existing_domain(&self, name: Option<&[u8]>) -> Result<Domid, Error> {
        match atoi(name.ok_or(Error::Invalid)?) {
            0 => Err(Error::Invalid),
            domid if self.store.domains.contains(domid) => Ok(domid),
            _ => Err(Error::NotFound),
        }
    }

    /// EBUSY for a hosted domain, which ends with its process.
    pub fn release(&mut self, payload: &[u8]) -> Reply {
        let domid = self.existing_domain(one_string(payload))?;
        if self.store.domains.is_hosted(domid) {
            return Err(Error::Busy);
        }
        self.store.remove_domain(domid);
        Ok(OK.to_vec())
    }

    pub fn set_target(&mut self, payload: &[u8]) -> Reply {
        let mut parts = strings(payload).map(atoi);
        let (Some(domid), Some(target)) = (parts.next(), parts.next()) else {
            return Err(Error::Invalid);
        };
        if !self.store.domains.contains(target) {
            return Err(Error::NotFound);
        }
        self.store
            .domains
            .get_mut(domid)
            .ok_or(Error::NotFound)?
            .target = Some(target);
        Ok(OK.to_vec())
    }
}
