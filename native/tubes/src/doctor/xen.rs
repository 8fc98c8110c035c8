//! A Xen domain: devices, libraries, limits.

use rustix::fs::{Access, access};

use super::{Check, Grade, Machine};

/// Devices that a tube needs, the module behind each, and what for.
const DEVICES: [(&str, &str, &str); 4] = [
    (
        "gntalloc",
        "xen-gntalloc",
        "sharing pages (the side that accepts)",
    ),
    (
        "gntdev",
        "xen-gntdev",
        "mapping shared pages (the side that asks)",
    ),
    ("evtchn", "xen-evtchn", "event channels"),
    ("xenbus", "xenfs", "the store, in a guest"),
];

const LIBRARIES: [(&str, &str); 2] = [
    ("libxengnttab.so.1", "libxengnttab1"),
    ("libxenevtchn.so.1", "libxenevtchn1"),
];

const LIBRARY_DIRS: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/lib/x86_64-linux-gnu",
    "/usr/local/lib",
];

/// A tube of 64 KiB rings: 16 data pages and a control page each way.
const PAGES_A_TUBE: u64 = 34;

pub fn checks(machine: &Machine) -> Vec<Check> {
    let mut checks = Vec::new();
    for (device, module, purpose) in DEVICES {
        let path = machine.path(&format!("/dev/xen/{device}"));
        checks.push(if !path.exists() {
            Check::bad(
                device,
                Grade::Wrong,
                format!("/dev/xen/{device} is not there: {purpose}"),
                format!(
                    "modprobe {module}; and its name in /etc/modules-load.d for the next start"
                ),
            )
        } else if access(&path, Access::READ_OK | Access::WRITE_OK).is_err() {
            Check::bad(
                device,
                Grade::Wrong,
                format!("this user may not open /dev/xen/{device}"),
                format!("a udev rule: KERNEL==\"xen/{device}\", GROUP=\"tube\", MODE=\"0660\""),
            )
        } else {
            Check::fine(device, format!("/dev/xen/{device} may be opened"))
        });
    }
    for (library, package) in LIBRARIES {
        let there = LIBRARY_DIRS
            .iter()
            .any(|dir| machine.path(&format!("{dir}/{library}")).exists());
        checks.push(if there {
            Check::fine("library", format!("{library} is there"))
        } else {
            Check::bad(
                "library",
                Grade::Warning,
                format!("{library} is in none of the usual places"),
                format!("apt-get install {package}"),
            )
        });
    }
    if let Some(limit) = machine.number("/sys/module/xen_gntalloc/parameters/limit") {
        let tubes = limit / PAGES_A_TUBE;
        let found = format!("gntalloc shares at most {limit} pages: {tubes} tubes of 64 KiB rings");
        checks.push(if tubes >= 8 {
            Check::fine("limit", found)
        } else {
            let cure = "options xen-gntalloc limit=4096 in /etc/modprobe.d";
            Check::bad("limit", Grade::Warning, found, cure)
        });
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_without_gntalloc_and_with_a_low_limit() {
        let root = tempfile::tempdir().unwrap();
        let dev = root.path().join("dev/xen");
        std::fs::create_dir_all(&dev).unwrap();
        for device in ["gntdev", "evtchn", "xenbus"] {
            std::fs::write(dev.join(device), "").unwrap();
        }
        let parameters = root.path().join("sys/module/xen_gntalloc/parameters");
        std::fs::create_dir_all(&parameters).unwrap();
        std::fs::write(parameters.join("limit"), "100\n").unwrap();
        let machine = Machine {
            root: root.path().into(),
            env: Box::new(|_| None),
        };
        let found = checks(&machine);
        let wrong: Vec<_> = found.iter().filter(|c| c.grade == Grade::Wrong).collect();
        assert_eq!(wrong.len(), 1, "{found:?}");
        assert!(wrong[0].cure.starts_with("modprobe xen-gntalloc"));
        let limit = found.iter().find(|c| c.about == "limit").unwrap();
        assert_eq!(limit.grade, Grade::Warning);
        assert!(limit.found.contains("2 tubes"));
        // No libraries there.
        assert_eq!(
            found
                .iter()
                .filter(|c| c.about == "library" && c.grade == Grade::Warning)
                .count(),
            2
        );
    }
}
