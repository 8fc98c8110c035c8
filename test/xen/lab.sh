# Sourced after bin/common.sh by the scripts that use the lab: check the machine, boot, end.
# shellcheck shell=bash

# need_lab WHO: checks that this machine can run the lab; as root installs missing packages.
need_lab() {
  local who=$1 pair log missing=()
  # The guests run what this machine compiles, with the libraries of Debian 12.
  if ! grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release; then
    complain "$who needs Debian 12, because its guests run what this machine compiles. The other gates of bin/test do not."
    return 1
  fi

  for pair in qemu-system-x86_64:qemu-system-x86 objcopy:binutils cpio:cpio modinfo:kmod lz4:lz4 xz:xz-utils zstd:zstd perl:perl; do
    PATH=$PATH:/sbin:/usr/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    complain "$who needs: apt-get install ${missing[*]}"
    return 1
  fi
  say "installing ${missing[*]}"
  log=$(mktemp)
  if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    complain "$who: apt-get could not install ${missing[*]}"
    return 1
  fi
  rm -f "$log"
}

seconds() { printf '%s' "$((SECONDS - began)) s"; }

# boot_lab RUN [DIRECTORY...]: builds missing images, boots as test/xen/boot does, and sets the
# variables that Tube.Test.Lab and test/xen/enter read.
boot_lab() {
  began=$SECONDS
  test/xen/images || return 1
  say "images    $(seconds)"
  began=$SECONDS
  test/xen/boot "$@" || return 1
  say "boot      $(seconds)"

  TUBE_XEN_PORTS=$(cat "$1/ports")
  export TUBE_XEN_PORTS TUBE_TEST_ENTER=$root/test/xen/enter
  export PATH=$root/test/xen/programs:$PATH
}

# end_lab RUN: also if it has not been booted.
end_lab() {
  local pid
  if pid=$(cat "$1/pid" 2>/dev/null); then kill "$pid" 2>/dev/null; fi
}

# consoles RUN: prints what the domains have logged since they were ready, to help find a failure.
consoles() {
  complain "the consoles since the boot:"
  sed '1,/lab: ready/d' "$1/serial.log" | tail -n 60 >&2
}
