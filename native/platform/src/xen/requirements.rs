//! What a Xen domain with tubes needs, and which of it this machine lacks.

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, retry_on_intr};

use super::evtchn::Evtchn;
use super::grants::Grants;
use super::missing::Missing;
use super::store;

/// The devices: path, word for its absence, fix.
const DEVICES: [(&str, &str, &str); 3] = [
    (
        "/dev/xen/gntalloc",
        "no_gntalloc",
        "in a Xen domain, modprobe xen-gntalloc",
    ),
    (
        "/dev/xen/gntdev",
        "no_gntdev",
        "in a Xen domain, modprobe xen-gntdev",
    ),
    (
        "/dev/xen/evtchn",
        "no_evtchn",
        "in a Xen domain, modprobe xen-evtchn",
    ),
];

/// The xenbus driver is not a module: a kernel with Xen support has it built in.
const NO_DOMAIN: &str = "this is not a Xen domain, or its /dev is not the kernel's";

/// All that is missing on this machine. Empty if tubes can be opened.
pub fn missing() -> Vec<Missing> {
    let mut all = Vec::new();
    if let Err(error) = store::connection() {
        all.push(match error.kind {
            crate::ErrorKind::Posix(errno) => {
                missing_device(errno, store::DEVICE, "no_xenbus", NO_DOMAIN)
            }
            _ => unreachable!("opening returns only error numbers"),
        });
    }
    for (path, word, fix) in DEVICES {
        // Opening has no effect in any of these drivers before the first ioctl.
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        if let Err(errno) = retry_on_intr(|| open(path, flags, Mode::empty())) {
            all.push(missing_device(errno, path, word, fix));
        }
    }
    all.extend(Grants::load().err());
    all.extend(Evtchn::load().err());
    all
}

fn missing_device(errno: Errno, path: &str, word: &'static str, fix: &str) -> Missing {
    match errno {
        Errno::ACCESS | Errno::PERM => Missing {
            word: "eacces",
            what: format!(
                "this user may not open {path}: run as root, or grant a group access with a udev \
                 rule: SUBSYSTEM==\"misc\", KERNEL==\"xen/{}\", GROUP=\"tube\", MODE=\"0660\"",
                path.rsplit('/').next().unwrap_or_default()
            ),
        },
        // The driver is loaded but refuses: this kernel does not run in a Xen domain.
        Errno::NODEV | Errno::NOENT | Errno::NXIO => Missing {
            word,
            what: format!("{path} is not there: {fix}"),
        },
        errno => Missing {
            word,
            what: format!("{path} cannot be opened: {errno}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_device_names_its_module() {
        for (path, word, fix) in DEVICES {
            let missing = missing_device(Errno::NOENT, path, word, fix);
            assert_eq!(missing.word, word);
            assert!(missing.what.contains(path) && missing.what.contains("modprobe"));
        }
    }

    #[test]
    fn a_device_without_permission_names_the_udev_rule() {
        let missing = missing_device(Errno::ACCESS, "/dev/xen/gntdev", "no_gntdev", "a fix");
        assert_eq!(missing.word, "eacces");
        assert!(
            missing.what.contains("KERNEL==\"xen/gntdev\""),
            "{}",
            missing.what
        );
    }

    #[test]
    fn every_absent_device_is_reported_missing() {
        let words: Vec<_> = missing().iter().map(|missing| missing.word).collect();
        for (path, word, _) in DEVICES {
            let there = std::path::Path::new(path).exists();
            assert!(there || words.contains(&word), "{path}: {words:?}");
        }
    }
}
