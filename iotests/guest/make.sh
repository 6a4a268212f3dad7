#!/bin/bash
# SPDX-License-Identifier: MIT
# make.sh DIRECTORY CACHE: makes DIRECTORY/vmlinuz and DIRECTORY/initrd, for iotests/nbd-linux-guest.sh. The kernel is that of
# Debian's package, which is downloaded into CACHE unless it is there.
set -eu -o pipefail

here=$(dirname "$(readlink -f "$0")")
out=$(readlink -f "$1")
mkdir -p "$2"
cache=$(readlink -f "$2")

if ! ls "$cache"/kernel/boot/vmlinuz-* >/dev/null 2>&1; then
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    rm -rf "$cache/kernel" "$cache/new"
    (cd "$cache" && apt-get -qq download "${package:?no cloud kernel in the package lists: apt-get update}")
    dpkg-deb -x "$cache/$package"_*.deb "$cache/new"
    rm "$cache/$package"_*.deb
    mv "$cache/new" "$cache/kernel"
fi
cp "$cache"/kernel/boot/vmlinuz-* "$out/vmlinuz"

root=$out/root
mkdir -p "$root"/{bin,dev,proc,mnt,modules,etc}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$here/init" "$root/init"
chmod 755 "$root/init"
gcc -O2 -static -D_GNU_SOURCE -Wall -Wextra -Werror -o "$root/bin/files" "$here/files.c"
for program in mke2fs e2fsck; do
    path=$(PATH=$PATH:/sbin:/usr/sbin command -v $program)
    cp "$path" "$root/bin/"
    ldd "$path" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -n "$library" "$root$library"
    done
done
# In the order in which they need each other; what is not there is part of the kernel.
number=10
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk crc16 mbcache crc32c_generic \
    jbd2 ext4; do
    find "$cache/kernel" -name "$module.ko" -exec cp {} "$root/modules/$number-$module.ko" \;
    number=$((number + 1))
done
(cd "$root" && find . | cpio --quiet -o -H newc) | gzip -1 >"$out/initrd"
rm -rf "$root"
