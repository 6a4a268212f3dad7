#!/bin/bash
# SPDX-License-Identifier: MIT
#
# disk-of-files.sh DISK MEBIBYTES CONTENT-MEBIBYTES [TREE...]
#
# Makes DISK, a raw ext4 image of MEBIBYTES, from regular files below the TREEs (absolute names) of this machine: whole
# directories in the order of their names, files of up to 32 MiB, until CONTENT-MEBIBYTES are reached. Needs as much
# room again beside DISK for a moment. Prints how many files and bytes there are.
set -eu -o pipefail
PATH=$PATH:/usr/sbin:/sbin

disk=$1 mib=$2 content_mib=$3
shift 3
[ $# -gt 0 ] || set -- /usr/share /usr/lib /usr/include

stage=$(mktemp -d "$disk.XXXXXX")
trap 'rm -rf -- "$stage"' EXIT

stage_files() {         # TREE...
    { find "$@" -xdev -type f -readable -size -32768k -printf '%p\0%s\0' || true; } 2>/dev/null |
        perl -e 'my $left = shift() * 1048576; local $/ = "\0"; my (%files, $name);
            while (defined($name = <STDIN>)) { chomp $name; chomp(my $size = <STDIN>); $files{$name} = $size; }
            for my $name (sort keys %files) {
                my $need = $files{$name} + 4096;
                print substr($name, 1), "\0" if $need <= $left && ($left -= $need);
            }' "$content_mib" |
        { tar -cf - -C / --null --no-recursion --files-from=- --ignore-failed-read 2>/dev/null || [ $? -eq 1 ]; } |
        tar -xf - -C "$stage" --no-same-owner
}

stage_files "$@"
echo "$(find "$stage" -type f | wc -l) files, $(du -sm "$stage" | cut -f1) MiB"
rm -f -- "$disk"
truncate -s "${mib}M" "$disk"
mke2fs -q -F -t ext4 -d "$stage" "$disk"
