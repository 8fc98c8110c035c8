#!/bin/sh
# Unpacks Debian's Xen 4.17 xenstored, its libraries and command-line tools into a folder, without
# installing anything.
#
#   fetch.sh FOLDER        creates FOLDER/usr/lib/xen-4.17/bin/xenstored, or fails
#
# Needs apt-get, dpkg-deb, and Debian 12 (bookworm) among the package sources; no root. Does nothing
# if the file exists already.
set -eu

folder=${1:?usage: fetch.sh FOLDER}
case $folder in /*) ;; *) folder=$PWD/$folder ;; esac
daemon=usr/lib/xen-4.17/bin/xenstored
packages='xen-utils-4.17 libxenmisc4.17 libxencall1 libxendevicemodel1 libxenevtchn1 libxenforeignmemory1
  libxengnttab1 libxentoolcore1 libxentoollog1 libxenstore4 xenstore-utils'

[ -x "$folder/$daemon" ] && exit 0

for tool in apt-get dpkg-deb; do
    command -v $tool >/dev/null || { echo "fetch.sh: needs $tool, as on Debian and its derivatives" >&2; exit 1; }
done

mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
mkdir "$work/root" "$work/debs"
cd "$work/debs"

download() {
    # shellcheck disable=SC2086
    apt-get -qq "$@" download $packages >"$work/log" 2>&1
}

# Use the machine's package lists if they are recent enough, otherwise new ones, which need no root.
if ! download; then
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    set -- -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache"
    if ! apt-get -qq "$@" update >"$work/log" 2>&1 || ! download "$@"; then
        cat "$work/log" >&2
        echo "fetch.sh: cannot download Debian 12's xenstored (xen-utils-4.17)" >&2
        exit 1
    fi
fi

for package in *.deb; do
    dpkg-deb -x "$package" "$work/root"
done
[ -x "$work/root/$daemon" ] || { echo "fetch.sh: no $daemon in the packages" >&2; exit 1; }

# If several runs race, the first one's result stays.
mv -T "$work/root" "$folder" 2>/dev/null || [ -x "$folder/$daemon" ]
