# Sourced by the other scripts here: the project's root, messages, scratch directories, hubs, suites.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1

# rustup puts cargo here and asks for a new login shell. Spare the user that.
if ! command -v cargo >/dev/null && [ -x "${HOME:-}/.cargo/bin/cargo" ]; then
  PATH="$HOME/.cargo/bin:$PATH"
fi

# Without a UTF-8 locale Elixir warns at each start and prints file names wrongly.
case ${LC_ALL:-${LC_CTYPE:-${LANG:-}}} in
  *[Uu][Tt][Ff]*) ;;
  *) export LC_ALL=C.UTF-8 ;;
esac

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
  green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
  green='' red='' plain=''
fi

say() { printf '%s\n' "$*"; }
complain() { printf '%s%s%s\n' "$red" "$*" "$plain" >&2; }

# A short path: the name of a unix socket has at most 108 bytes.
scratch_dir() { mktemp -d "${TMPDIR:-/tmp}/tube-$1.XXXXXX"; }

# The pids of the hubs whose run directory is $1 or below it: never those of other users.
hubs_below() {
  local dir=$1 file args i
  for file in /proc/[0-9]*/cmdline; do
    # A process may end after it was listed; kernel threads have no arguments.
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

# exunit MIX TEST...: runs a suite. If at most three tests fail, runs these once more. A test that
# fails now and then is a defect, and bin/test names it, but it is no reason to repeat all the
# others.
exunit() {
  local log status failed
  log=$(mktemp "${TMPDIR:-/tmp}/tube-exunit.XXXXXX") || return
  # Not through a pipe: processes that outlive the suite for a moment would hold it open.
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
