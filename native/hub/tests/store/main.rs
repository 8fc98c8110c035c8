//! The store of the hub by itself: what it does for several domains and connections, and to clients
//! that behave badly. How it answers to single requests is compared with Xen's own xenstored in
//! `differential`.

mod connections;
mod domains;
mod permissions;
mod random;
mod support;
mod transactions;
mod watches;
