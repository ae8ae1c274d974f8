#!/usr/bin/env bash
# Try quadbench on a bare Debian or Ubuntu: scripts/host_root.sh SUITE COMMAND...
#     scripts/host_root.sh trixie make demo
#     scripts/host_root.sh bookworm make demo DEVICES=local
#     scripts/host_root.sh resolute make demo
# Makes the root folder of the suite with debootstrap, if $ROOTS has none (Ubuntu's need the package ubuntu-keyring). Clones the last
# commit into it, and runs the command there as root. The root is entered by pivot_root, as virtual devices cannot make their
# namespaces in a chroot.
# $ROOTS (/var/tmp/quadbench-roots) is where the roots lie; $WITH names folders and files of this machine to mount read-only in it.
set -euo pipefail

if [[ $# -lt 2 ]]; then
    sed -n '2,9s/^# //p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
suite=$1
shift
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
root=${ROOTS:-/var/tmp/quadbench-roots}/$suite

if [[ ! -e $root/.complete ]]; then
    rm -rf "$root"
    mkdir -p "$root"
    arguments=("$suite" "$root")
    if [[ " bookworm trixie forky sid " != *" $suite "* ]]; then
        arguments=(--components=main,universe --keyring=/usr/share/keyrings/ubuntu-archive-keyring.gpg "${arguments[@]}"
                   http://archive.ubuntu.com/ubuntu /usr/share/debootstrap/scripts/gutsy)
    fi
    debootstrap --variant=minbase --include=ca-certificates,git,make "${arguments[@]}" >"$root.log"
    touch "$root/.complete"
fi
[[ -e $root/root/quadbench ]] || git clone --quiet "$checkout" "$root/root/quadbench"
git -C "$root/root/quadbench" pull --quiet --ff-only "$checkout" HEAD
cp --dereference /etc/resolv.conf "$root/etc/resolv.conf"

export root WITH
exec unshare --mount --pid --fork --ipc --uts --kill-child bash -c '
    set -euo pipefail
    mount --make-rprivate /
    mount --bind "$root" "$root"
    mount --rbind /dev "$root/dev"
    mount --rbind /sys "$root/sys"
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/tmp"
    for path in ${WITH:-}; do
        if [[ -d $path ]]; then mkdir -p "$root$path"; else mkdir -p "$root${path%/*}"; touch "$root$path"; fi
        mount --bind -o ro "$path" "$root$path"
    done
    grep -qw "$(uname -n)" "$root/etc/hosts" 2>/dev/null || echo "127.0.0.1 localhost $(uname -n)" >>"$root/etc/hosts"
    mkdir -p "$root/.before"
    cd "$root"
    pivot_root . .before
    umount --lazy /.before
    cd /root/quadbench
    export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    exec "$@"
' bash "$@"
