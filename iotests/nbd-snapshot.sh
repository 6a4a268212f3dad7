#!/bin/bash
# SPDX-License-Identifier: MIT
# blkstack-nbd -s leaves the image untouched, with and without --compress; -l serves an internal snapshot, read-only.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires qemu-img qemu-io nbdsh nbdcopy
any_backend

export TMPDIR=$PWD/tmp
mkdir tmp
qimg create -q -f qcow2 disk.qcow2 4M
text_file early.raw 1048576 1
text_file now.raw 1048576 2
peer_io disk.qcow2 qcow2 "write -s early.raw 0 1M"
qimg snapshot -c early disk.qcow2
peer_io disk.qcow2 qcow2 "write -s now.raw 0 1M"
qimg snapshot -c now disk.qcow2
peer_io disk.qcow2 qcow2 "write -P 7 0 1M"
before=$(sha256sum <disk.qcow2)

# ---- -s ----
for options in '' '--compress' '--detect-zeroes=on' '-o 64k'; do
    label="-s $options"
    # shellcheck disable=SC2086
    our_serve -s $options -f qcow2 disk.qcow2
    is "$(find tmp -type f | wc -l)" 1 "one temporary file"
    succeeds "reads show the image, then what was written" nbdsh -u "$our_uri" -c '
assert h.pread(65536, 0) == b"\7" * 65536
h.pwrite(b"x" * 100000, 12345)
h.zero(65536, 131072)
h.flush()
assert h.pread(12345, 0) == b"\7" * 12345
assert h.pread(100000, 12345) == b"x" * 100000
assert h.pread(65536, 131072) == bytes(65536)'
    succeeds "another client sees it, too" nbdsh -u "$our_uri" -c 'assert h.pread(100000, 12345) == b"x" * 100000'
    stop_server
    is "$(sha256sum <disk.qcow2)" "$before" "the image is as it was"
    is "$(find tmp -type f)" "" "the temporary file is gone"
done
label="-s -r"
our_serve -s -r -f qcow2 disk.qcow2
succeeds "reads show the image" nbdsh -u "$our_uri" -c 'assert h.is_read_only() and h.pread(65536, 0) == b"\7" * 65536'
stop_server
label="-s, raw"
our_serve -s -f raw early.raw
sum=$(sha256sum <early.raw)
succeeds "writes" nbdsh -u "$our_uri" -c 'h.pwrite(b"x" * 4096, 0); h.flush(); assert h.pread(4096, 0) == b"x" * 4096'
stop_server
is "$(sha256sum <early.raw)" "$sum" "the image is as it was"
label=
chmod 555 tmp
if [ "$(id -u)" -ne 0 ]; then
    fails "no place for the overlay" 'temporary overlay' "$BLKSTACK_NBD" -s -k "$nbd_dir/o" -f qcow2 disk.qcow2
fi
TMPDIR=/nonexistent fails "no directory for the overlay" 'with a temporary overlay: ' "$BLKSTACK_NBD" -s -k "$nbd_dir/o" -f qcow2 disk.qcow2

# ---- -l ----
for snapshot in early 1 snapshot.name=early snapshot.id=1 snapshot.id=1,snapshot.name=early; do
    our_serve -l "$snapshot" -f qcow2 disk.qcow2
    succeeds "served: -l $snapshot" nbdcopy "$our_uri" copy.raw
    succeeds "what the disk held then: -l $snapshot" cmp -n 1048576 early.raw copy.raw
    stop_server
done
our_serve -l now --compress -o 64k -f qcow2 disk.qcow2
succeeds "another one, from an offset, below the filter" nbdsh -u "$our_uri" -c '
assert h.is_read_only()
assert h.pread(65536, 0) == open("now.raw", "rb").read(131072)[65536:]
h.set_strict_mode(0)
try:
    h.pwrite(b"x", 0)
except nbd.Error as error:
    assert error.errno == "EPERM"
else:
    raise AssertionError("it was written to")'
stop_server
is "$(sha256sum <disk.qcow2)" "$before" "the image is as it was"
for snapshot in none 3 '' snapshot.name=none snapshot.id=2,snapshot.name=early; do
    fails "no such snapshot: -l '$snapshot'" 'Failed to load snapshot' "$BLKSTACK_NBD" -l "$snapshot" -k "$nbd_dir/o" -f qcow2 disk.qcow2
done
fails "a format without snapshots" 'does not support internal snapshots' "$BLKSTACK_NBD" -l early -k "$nbd_dir/o" -f raw early.raw
fails "-s and -l" 'Failed to load snapshot' "$BLKSTACK_NBD" -s -l early -k "$nbd_dir/o" -f qcow2 disk.qcow2
is "$(find tmp -type f)" "" "no temporary file is left"
done_testing
