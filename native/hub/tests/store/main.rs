//! The store by itself, with several domains and connections and with faulty clients.
//! `differential` compares its replies with those of Xen's own xenstored.

mod connections;
mod domains;
mod permissions;
mod random;
mod support;
mod transactions;
mod watches;
