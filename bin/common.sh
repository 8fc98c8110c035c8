# Sourced by the other scripts here: where the project is, how to speak, which hubs to end.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1

# rustup puts cargo here and asks for a new login shell; do not make the reader start one.
if ! command -v cargo >/dev/null && [ -x "${HOME:-}/.cargo/bin/cargo" ]; then
  PATH="$HOME/.cargo/bin:$PATH"
fi

# Without a UTF-8 locale Elixir warns at each start, and file names come out wrong.
case ${LC_ALL:-${LC_CTYPE:-${LANG:-}}} in
  *[Uu][Tt][Ff]*) ;;
  *) export LC_ALL=C.UTF-8 ;;
esac

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
  green=$'\e[32m' red=$'\e[31m' dim=$'\e[2m' plain=$'\e[0m'
else
  green='' red='' dim='' plain=''
fi

say() { printf '%s\n' "$*"; }
complain() { printf '%s%s%s\n' "$red" "$*" "$plain" >&2; }

# The short path keeps unix socket names (108 bytes at most) in bounds on every machine.
scratch_dir() { mktemp -d "${TMPDIR:-/tmp}/tube-$1.XXXXXX"; }

# The pids of the hubs whose run directory lies in or below $1: never anybody else's.
hubs_below() {
  local dir=$1 file args i
  for file in /proc/[0-9]*/cmdline; do
    # A process may end between the listing and the reading; the kernel's own have no words.
    { mapfile -d '' -t args <"$file"; } 2>/dev/null
    [[ ${args[0]:-} == tube-hub || ${args[0]:-} == */tube-hub ]] || continue
    for ((i = 1; i < ${#args[@]}; i++)); do
      if [[ ${args[i]} == "$dir" || ${args[i]} == "$dir"/* ]]; then
        file=${file#/proc/}
        say "${file%/cmdline}"
        break
      fi
    done
  done
}

end_hubs_below() {
  local pid
  for pid in $(hubs_below "$1"); do kill "$pid" 2>/dev/null; done
}

# exunit MIX TEST...: runs a suite, and those of its tests once more that have failed, if they are few. What fails
# now and then is a defect, and is named in what bin/test says; it is no reason to run all the rest again.
exunit() {
  local log status failed
  log=$(mktemp "${TMPDIR:-/tmp}/tube-exunit.XXXXXX") || return
  # Not through a pipe: what a suite leaves running for a moment would hold it open.
  "$@" >"$log" 2>&1
  status=$?
  cat "$log"
  failed=$(sed -nE 's/.* ([0-9]+) failures?\b.*/\1/p; s/^Failed: ([0-9]+) .*/\1/p' "$log" | tail -n 1)
  if [ "$status" -ne 0 ] && [[ $failed =~ ^[1-3]$ ]]; then
    sed -nE 's/^ +[0-9]+\) (test|property|doctest) (.*)/FAILED AT FIRST: \2/p' "$log"
    "$@" --failed
    status=$?
  fi
  rm -f "$log"
  return "$status"
}
