//! The operations of the protocol, as C xenstored 4.17 performs them.

use super::access::Access;
use super::codec::{self, Header, Op, PAYLOAD_MAX, atoi, one_string, split_string, strings};
use super::domain::home;
use super::error::{Error, OK, Reply};
use super::node::Node;
use super::path::Path;
use super::perms::{Domid, Perms, Rights};
use super::transaction::Transaction;
use super::watch::{ConnId, Reach, Token};
use super::{Xenstored, toolstack};

impl Xenstored {
    /// Serves one request: queues its reply and all events that it causes.
    pub(super) fn serve(&mut self, conn: ConnId, header: Header, payload: &[u8]) {
        let mut initial_event = None;
        let reply = self.perform(conn, header, payload, &mut initial_event);
        match reply {
            Ok(reply) if reply.len() <= PAYLOAD_MAX => {
                self.reply(conn, header, header.kind, &reply)
            }
            Ok(_) => self.reply_error(conn, header, Error::TooBig),
            Err(error) => self.reply_error(conn, header, error),
        }
        if let Some(event) = initial_event {
            self.send_event(conn, &event);
        }
    }

    fn reply_error(&mut self, conn: ConnId, header: Header, error: Error) {
        let name = [error.name().as_bytes(), b"\0"].concat();
        self.reply(conn, header, codec::ERROR, &name);
    }

    /// Performs one request. `initial_event` is set to the event that follows the reply; events
    /// caused by changes precede it.
    fn perform(
        &mut self,
        id: ConnId,
        header: Header,
        payload: &[u8],
        initial_event: &mut Option<Vec<u8>>,
    ) -> Reply {
        let op = Op::from_wire(header.kind).ok_or(Error::NoSuchOperation)?;
        let conn = self.connections.get_mut(&id).ok_or(Error::Invalid)?;
        let subject = self.domains.subject(conn.domid);
        if op.is_privileged() && !subject.is_privileged() {
            return Err(Error::Access);
        }
        let tx = match header.tx_id {
            0 => None,
            _ if op.ignores_transaction() => None,
            tx_id => Some(conn.transactions.remove(&tx_id).ok_or(Error::NotFound)?),
        };
        let mut access = Access {
            store: self,
            subject,
            tx,
        };
        let reply = match op {
            Op::Directory => access.directory(payload),
            Op::DirectoryPart => access.directory_part(payload),
            Op::Read => access.value(payload),
            Op::Write => access.set_value(payload),
            Op::Mkdir => access.mkdir(payload),
            Op::Rm => access.rm(payload),
            Op::GetPerms => access.perms(payload),
            Op::SetPerms => access.set_perms(payload),
            Op::Watch => access.watch(id, payload, initial_event),
            Op::Unwatch => access.unwatch(id, payload),
            Op::ResetWatches => access.reset_watches(id),
            Op::TransactionStart => access.transaction_start(id),
            Op::TransactionEnd => access.transaction_end(payload),
            Op::GetDomainPath => toolstack::domain_path(payload),
            Op::IsDomainIntroduced => access.is_introduced(payload),
            Op::Introduce => access.introduce(payload),
            Op::Release => access.release(payload),
            Op::Resume => access
                .existing_domain(one_string(payload))
                .map(|_| OK.to_vec()),
            Op::SetTarget => access.set_target(payload),
            // No commands are supported. C xenstored replies the same to an unknown command.
            Op::Control => Err(Error::Invalid),
        };
        if let Some(tx) = access.tx
            && let Some(conn) = self.connections.get_mut(&id)
        {
            conn.transactions.insert(header.tx_id, tx);
        }
        reply
    }

    /// Refunds what a transaction that ends was charged.
    pub(super) fn end_transaction(&mut self, domid: Domid, tx: &Transaction) {
        self.domains.charge(domid, |usage| {
            usage.transactions = usage.transactions.saturating_sub(1);
            usage.memory = usage.memory.saturating_sub(tx.charged);
        });
    }

    /// Removes all watches of a connection and ends its transactions.
    pub(super) fn reset(&mut self, id: ConnId) {
        let Some(conn) = self.connections.get_mut(&id) else {
            return;
        };
        let domid = conn.domid;
        for tx in std::mem::take(&mut conn.transactions).into_values() {
            self.end_transaction(domid, &tx);
        }
        for (path, token) in self.watches.of(id) {
            self.remove_watch(id, domid, &path, &token);
        }
    }

    fn remove_watch(&mut self, id: ConnId, domid: Domid, path: &Path, token: &[u8]) -> bool {
        let removed = self.watches.remove(id, path, token);
        if removed {
            self.domains.charge(domid, |usage| {
                usage.watches = usage.watches.saturating_sub(1);
                usage.memory = usage
                    .memory
                    .saturating_sub(path.bytes().len() + token.len());
            });
        }
        removed
    }
}

impl Access<'_> {
    fn resolve(&self, name: Option<&[u8]>) -> Result<Path, Error> {
        Path::resolve(
            &home(self.subject.domid),
            name.ok_or(Error::Invalid)?,
            self.store.quota.path,
        )
    }

    fn directory(&mut self, payload: &[u8]) -> Reply {
        let path = self.resolve(one_string(payload))?;
        Ok(self.node(&path, Rights::READ)?.children.bytes().to_vec())
    }

    fn directory_part(&mut self, payload: &[u8]) -> Reply {
        let parts: Vec<&[u8]> = strings(payload).collect();
        let [name, offset] = parts[..] else {
            return Err(Error::Invalid);
        };
        let path = self.resolve(Some(name))?;
        let node = self.node(&path, Rights::READ)?;
        Ok(node.children.part(node.generation, atoi(offset) as usize))
    }

    fn value(&mut self, payload: &[u8]) -> Reply {
        let path = self.resolve(one_string(payload))?;
        Ok(self.node(&path, Rights::READ)?.data.clone())
    }

    fn set_value(&mut self, payload: &[u8]) -> Reply {
        let (name, value) = split_string(payload).ok_or(Error::Invalid)?;
        let path = self.resolve(Some(name))?;
        match self.node(&path, Rights::WRITE) {
            Ok(node) => {
                let node = Node {
                    data: value.to_vec(),
                    ..self.edit(&node)
                };
                self.write(vec![(path.clone(), node)], true)?;
            }
            Err(Error::NotFound) => self.create(&path, value)?,
            Err(error) => return Err(error),
        }
        self.fire(&path, None, Reach::Above, None);
        Ok(OK.to_vec())
    }

    /// Does nothing, and fires no watch, if the node exists.
    fn mkdir(&mut self, payload: &[u8]) -> Reply {
        let path = self.resolve(one_string(payload))?;
        match self.node(&path, Rights::WRITE) {
            Ok(_) => {}
            Err(Error::NotFound) => {
                self.create(&path, b"")?;
                self.fire(&path, None, Reach::Above, None);
            }
            Err(error) => return Err(error),
        }
        Ok(OK.to_vec())
    }

    /// Needs write permission on the node itself, not on its parent or descendants. Succeeds for a
    /// node that does not exist if its parent does.
    fn rm(&mut self, payload: &[u8]) -> Reply {
        let path = self.resolve(one_string(payload))?;
        match self.node(&path, Rights::WRITE) {
            Ok(_) if path.is_root() => return Err(Error::Invalid),
            Ok(_) => self.remove(&path)?,
            Err(Error::NotFound) if self.read(&path.parent())?.is_some() => {}
            Err(error) => return Err(error),
        }
        Ok(OK.to_vec())
    }

    fn perms(&mut self, payload: &[u8]) -> Reply {
        let path = self.resolve(one_string(payload))?;
        Ok(self.node(&path, Rights::READ)?.perms.encode())
    }

    /// Only for the owner and domain 0. Permissions for domains that do not exist are kept but
    /// grant nothing. ENOENT if the new owner does not exist.
    fn set_perms(&mut self, payload: &[u8]) -> Reply {
        let mut parts = strings(payload);
        let name = parts.next().ok_or(Error::Invalid)?;
        let permissions: Vec<&[u8]> = parts.collect();
        if !self.subject.is_privileged() && permissions.len() > self.store.quota.perms {
            return Err(Error::NoSpace);
        }
        let mut perms = Perms::parse(permissions.into_iter())?;
        perms.ignore_invalid(true, |domid| self.store.domains.contains(domid));
        if perms.owner_is_ignored() {
            return Err(Error::NotFound);
        }
        let needed = Rights::WRITE.union(Rights::OWNER);
        if name.starts_with(b"@") {
            let domains = &mut self.store.domains;
            let rights = domains.special_rights(name, self.subject);
            if !rights.ok_or(Error::Invalid)?.contains(needed) {
                return Err(Error::Access);
            }
            domains.set_special(name, perms);
            return Ok(OK.to_vec());
        }
        let path = self.resolve(Some(name))?;
        let old = self.node(&path, needed)?;
        if !self.subject.is_privileged() && perms.owner() != old.perms.owner() {
            return Err(Error::Owner);
        }
        let node = Node {
            perms,
            ..(*old).clone()
        };
        self.write(vec![(path.clone(), node)], true)?;
        self.fire(&path, None, Reach::Above, Some(&old));
        Ok(OK.to_vec())
    }

    /// Fires once immediately, after the reply, whether or not the node exists or may be read.
    fn watch(
        &mut self,
        conn: ConnId,
        payload: &[u8],
        initial_event: &mut Option<Vec<u8>>,
    ) -> Reply {
        let parts: Vec<&[u8]> = strings(payload).collect();
        let [name, token] = parts[..] else {
            return Err(Error::Invalid);
        };
        let home = home(self.subject.domid);
        let path = Path::resolve_watch(&home, name, self.store.quota.path)?;
        if self.store.watches.contains(conn, &path, token) {
            return Err(Error::Exists);
        }
        let size = path.bytes().len() + token.len();
        let usage = self.store.domains.usage(self.subject.domid);
        if !self.subject.is_privileged() {
            if usage.watches > self.store.quota.watches {
                return Err(Error::TooBig);
            }
            if usage.memory + size >= self.store.quota.memory {
                return Err(Error::Memory);
            }
        }
        self.store.domains.charge(self.subject.domid, |usage| {
            usage.watches += 1;
            usage.memory += size;
        });
        let relative = (!name.starts_with(b"/") && !name.starts_with(b"@")).then_some(home.len());
        *initial_event = Some(
            self.store
                .watches
                .add(conn, path, Token::from(token), relative),
        );
        Ok(OK.to_vec())
    }

    fn unwatch(&mut self, conn: ConnId, payload: &[u8]) -> Reply {
        let parts: Vec<&[u8]> = strings(payload).collect();
        let [name, token] = parts[..] else {
            return Err(Error::Invalid);
        };
        let path = Path::absolute(&home(self.subject.domid), name);
        let removed = self
            .store
            .remove_watch(conn, self.subject.domid, &path, token);
        if removed {
            Ok(OK.to_vec())
        } else {
            Err(Error::NotFound)
        }
    }

    /// Also ends all transactions of the connection, including the one of this request.
    fn reset_watches(&mut self, conn: ConnId) -> Reply {
        if let Some(tx) = self.tx.take() {
            self.store.end_transaction(self.subject.domid, &tx);
        }
        self.store.reset(conn);
        Ok(OK.to_vec())
    }

    fn transaction_start(&mut self, conn: ConnId) -> Reply {
        if self.tx.is_some() {
            return Err(Error::Busy);
        }
        let open = self.store.domains.usage(self.subject.domid).transactions;
        if !self.subject.is_privileged() && open > self.store.quota.transactions {
            return Err(Error::NoSpace);
        }
        let conn = self
            .store
            .connections
            .get_mut(&conn)
            .ok_or(Error::Invalid)?;
        let id = conn.add_transaction(Transaction::default());
        self.store
            .domains
            .charge(self.subject.domid, |usage| usage.transactions += 1);
        Ok(format!("{id}\0").into_bytes())
    }

    /// Ends the transaction, whatever the reply, unless the request is malformed.
    fn transaction_end(&mut self, payload: &[u8]) -> Reply {
        let commit = match one_string(payload) {
            Some(b"T") => true,
            Some(b"F") => false,
            _ => return Err(Error::Invalid),
        };
        let tx = self.tx.take().ok_or(Error::NotFound)?;
        self.store.end_transaction(self.subject.domid, &tx);
        if commit {
            self.commit(&tx)?;
        }
        Ok(OK.to_vec())
    }
}
