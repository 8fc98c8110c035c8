//! Checks of a Xen domain: devices, libraries, limits.

use rustix::fs::{Access, access};

use super::check::{Check, Grade};
use super::machine::Machine;

/// The devices that a tube needs, their kernel modules, and their purposes.
const DEVICES: [(&str, &str, &str); 4] = [
    (
        "gntalloc",
        "xen-gntalloc",
        "share pages (the side that accepts)",
    ),
    (
        "gntdev",
        "xen-gntdev",
        "map shared pages (the side that opens)",
    ),
    ("evtchn", "xen-evtchn", "use event channels"),
    ("xenbus", "xenfs", "reach the store from a guest"),
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

/// Pages of a tube with 64 KiB rings: each ring has 16 data pages and a control page.
const PAGES_PER_TUBE: u64 = 34;

pub fn checks(machine: &Machine) -> Vec<Check> {
    let mut checks = Vec::new();
    for (device, module, purpose) in DEVICES {
        let path = machine.path(&format!("/dev/xen/{device}"));
        checks.push(if !path.exists() {
            Check::bad(
                device,
                Grade::Wrong,
                format!("/dev/xen/{device} does not exist; it is needed to {purpose}"),
                format!(
                    "run modprobe {module}, and list it in /etc/modules-load.d for the next boot"
                ),
            )
        } else if access(&path, Access::READ_OK | Access::WRITE_OK).is_err() {
            Check::bad(
                device,
                Grade::Wrong,
                format!("this user may not open /dev/xen/{device}"),
                format!("add a udev rule: KERNEL==\"xen/{device}\", GROUP=\"tube\", MODE=\"0660\""),
            )
        } else {
            Check::fine(device, format!("this user may open /dev/xen/{device}"))
        });
    }
    for (library, package) in LIBRARIES {
        let found = LIBRARY_DIRS
            .iter()
            .any(|dir| machine.path(&format!("{dir}/{library}")).exists());
        checks.push(if found {
            Check::fine("library", format!("{library} is installed"))
        } else {
            Check::bad(
                "library",
                Grade::Warning,
                format!("{library} is in none of the usual directories"),
                format!("run apt-get install {package}"),
            )
        });
    }
    if let Some(limit) = machine.number("/sys/module/xen_gntalloc/parameters/limit") {
        let tubes = limit / PAGES_PER_TUBE;
        let found = format!(
            "gntalloc shares at most {limit} pages, enough for {tubes} tubes with 64 KiB rings"
        );
        checks.push(if tubes >= 8 {
            Check::fine("limit", found)
        } else {
            let cure = "put options xen-gntalloc limit=4096 into a file in /etc/modprobe.d";
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
        let found = checks(&Machine::below(root.path()));
        let wrong: Vec<_> = found.iter().filter(|c| c.grade == Grade::Wrong).collect();
        assert_eq!(wrong.len(), 1, "{found:?}");
        assert!(wrong[0].cure.contains("modprobe xen-gntalloc"));
        let limit = found.iter().find(|c| c.about == "limit").unwrap();
        assert_eq!(limit.grade, Grade::Warning);
        assert!(limit.found.contains("2 tubes"));
        // This machine has no libraries.
        assert_eq!(
            found
                .iter()
                .filter(|c| c.about == "library" && c.grade == Grade::Warning)
                .count(),
            2
        );
    }
}
