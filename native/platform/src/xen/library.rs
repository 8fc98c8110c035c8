//! Xen's C libraries, loaded by their versioned names at run time.
//!
//! Building needs none of them, and a machine without Xen has none. The unversioned names come only
//! with the development packages and do not identify the interface, so they are not used. The types
//! are those of tools/include/{xengnttab,xenevtchn,xentoollog}.h, unchanged since these sonames
//! were introduced (Xen 4.7).

use std::ffi::{c_char, c_int, c_ulong, c_void};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::missing::Missing;

/// Loads a library by its soname. `word` and `package` go into the report if it is missing.
pub(super) fn open(
    soname: &'static str,
    word: &'static str,
    package: &str,
) -> Result<Library, Missing> {
    // SAFETY: loading runs the initialisers of what the dynamic linker finds under this name: a
    // system library, or what the user of this process has put in its place. Xen's libraries have
    // none.
    unsafe { Library::open(Some(soname), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| Missing {
        word,
        what: format!("{soname} cannot be loaded (Debian: apt install {package}): {error}"),
    })
}

/// Declares the functions of one library as a struct of their addresses, with `load`. The struct
/// owns the library, so the addresses stay valid.
macro_rules! functions {
    (
        $(#[$doc:meta])* $name:ident: $soname:literal, $word:literal, $package:literal;
        $( fn $symbol:ident($($arg:ty),*) $(-> $ret:ty)?; )*
    ) => {
        $(#[$doc])*
        pub(super) struct $name {
            $( pub(super) $symbol: unsafe extern "C" fn($($arg),*) $(-> $ret)?, )*
            /// Last, so that it is dropped last. `None` for the fake functions of a test.
            pub(super) _library: Option<libloading::os::unix::Library>,
        }

        impl $name {
            pub(super) const SONAME: &'static str = $soname;

            pub(super) fn load() -> Result<Self, $crate::xen::missing::Missing> {
                let library = $crate::xen::library::open($soname, $word, $package)?;
                Ok(Self {
                    // SAFETY: the header gives the symbol this type in every version of the soname;
                    // the address is used only while `_library` is loaded.
                    $( $symbol: *unsafe {
                            library.get(concat!(stringify!($symbol), "\0").as_bytes())
                        }
                        .map_err(|error| $crate::xen::missing::Missing {
                            word: $word,
                            what: format!(
                                "{} has no {}: {error}",
                                Self::SONAME,
                                stringify!($symbol)
                            ),
                        })?, )*
                    _library: Some(library),
                })
            }
        }
    };
}
pub(super) use functions;

/// `struct xentoollog_logger`.
#[repr(C)]
pub(super) struct Logger {
    /// The `va_list` at the end is a pointer, or passed as one, on every architecture that Xen runs
    /// on. It is ignored.
    vmessage:
        unsafe extern "C" fn(*mut Logger, c_int, c_int, *const c_char, *const c_char, *mut c_void),
    progress:
        unsafe extern "C" fn(*mut Logger, *const c_char, *const c_char, c_int, c_ulong, c_ulong),
    destroy: unsafe extern "C" fn(*mut Logger),
}

/// A logger that discards everything. Without one the libraries write to standard error, which
/// belongs to the application; errno carries the same information.
static SILENT: Logger = Logger {
    vmessage: no_message,
    progress: no_progress,
    destroy: no_end,
};

/// The first argument for the libraries' `open` functions.
pub(super) fn silent() -> *mut Logger {
    // The libraries only pass it to the three functions, which do not touch it.
    (&raw const SILENT).cast_mut()
}

unsafe extern "C" fn no_message(
    _logger: *mut Logger,
    _level: c_int,
    _errno: c_int,
    _context: *const c_char,
    _format: *const c_char,
    _arguments: *mut c_void,
) {
}

unsafe extern "C" fn no_progress(
    _logger: *mut Logger,
    _context: *const c_char,
    _doing: *const c_char,
    _percent: c_int,
    _done: c_ulong,
    _total: c_ulong,
) {
}

unsafe extern "C" fn no_end(_logger: *mut Logger) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_reported_by_name_and_package() {
        let missing = open("libtube-nothing.so.1", "no_nothing", "nothing1").unwrap_err();
        assert_eq!(missing.word, "no_nothing");
        assert!(
            missing.what.contains("libtube-nothing.so.1"),
            "{}",
            missing.what
        );
        assert!(
            missing.what.contains("apt install nothing1"),
            "{}",
            missing.what
        );
    }

    #[test]
    fn the_logger_has_the_layout_of_the_header() {
        assert_eq!(size_of::<Logger>(), 3 * size_of::<usize>());
        assert_eq!(std::mem::offset_of!(Logger, vmessage), 0);
        assert_eq!(std::mem::offset_of!(Logger, progress), size_of::<usize>());
        assert_eq!(
            std::mem::offset_of!(Logger, destroy),
            2 * size_of::<usize>()
        );
    }
}
