//! Xen's own xenstore tools with the hub's store.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::*;

const ZERO: &str = "dom0/xenstored.sock";

#[test]
fn they_read_and_write() {
    let rig = Rig::with_hub(&[]);
    let tool = |program: &str, args: &[&str]| rig.tool(ZERO, program, args);
    assert_eq!(
        tool("xenstore-write", &["/a/b", "one", "/a/c", "two words"]),
        Ok(String::new())
    );
    assert_eq!(
        tool("xenstore-read", &["/a/b", "/a/c"]),
        Ok("one\ntwo words\n".into())
    );
    assert_eq!(tool("xenstore-list", &["/a"]), Ok("b\nc\n".into()));
    assert_eq!(
        tool("xenstore-ls", &["-f", "/a"]),
        Ok("/a/b = \"one\"\n/a/c = \"two words\"\n".into())
    );
    assert!(tool("xenstore-exists", &["/a/b"]).is_ok());
    assert!(tool("xenstore-exists", &["/a/d"]).is_err());
    assert!(tool("xenstore-read", &["/a/d"]).is_err());
    assert_eq!(tool("xenstore-rm", &["/a"]), Ok(String::new()));
    assert!(tool("xenstore-exists", &["/a"]).is_err());
}

#[test]
fn they_have_the_rights_of_their_domain() {
    let rig = Rig::with_hub(&[]);
    let _domains = [rig.domain(Some(5)), rig.domain(Some(7))];
    let as_5 = |program: &str, args: &[&str]| rig.tool("dom5/xenstored.sock", program, args);
    let as_7 = |program: &str, args: &[&str]| rig.tool("dom7/xenstored.sock", program, args);
    let mine = "/local/domain/5/data/mine";
    assert_eq!(as_5("xenstore-read", &["domid"]), Ok("5\n".into()));
    assert_eq!(
        as_5("xenstore-write", &["data/mine", "yes"]),
        Ok(String::new())
    );
    assert!(as_7("xenstore-read", &[mine]).is_err());
    assert_eq!(
        as_5("xenstore-chmod", &["data/mine", "n5", "r7"]),
        Ok(String::new())
    );
    assert_eq!(as_7("xenstore-read", &[mine]), Ok("yes\n".into()));
    assert!(as_7("xenstore-write", &[mine, "no"]).is_err());
    assert!(as_7("xenstore-chmod", &[mine, "b7"]).is_err());
    let listing = rig
        .tool(ZERO, "xenstore-ls", &["-f", "-p", mine])
        .expect("listed");
    assert_eq!(listing, "");
    let listing = rig
        .tool(ZERO, "xenstore-ls", &["-f", "-p", "/local/domain/5/data"])
        .expect("listed");
    let words: Vec<_> = listing.split_whitespace().collect();
    assert_eq!(words, [mine, "=", "\"yes\"", "(n5,r7)"]);
}

#[test]
fn they_watch() {
    let rig = Rig::with_hub(&[]);
    let mut watch = Command::new("xenstore-watch")
        .args(["-n", "2", "/watched"])
        .env("XENSTORED_PATH", rig.path(ZERO))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("xenstore-utils is installed");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    // The first event is the initial one.
    assert_eq!(next(), "/watched");
    rig.tool(ZERO, "xenstore-write", &["/watched/below", "x"])
        .expect("written");
    assert_eq!(next(), "/watched/below");
    assert!(watch.wait().expect("ended").success());
}
