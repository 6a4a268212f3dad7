#!/bin/bash
# SPDX-License-Identifier: MIT
# compare: exit status 0, 1, 2 and 4 and the text are the peer's; also strict, sizes, zeroes, and errors before and behind a
# difference.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
requires qemu-img qemu-io

twin_status_is() { # STATUS REGEX ARGUMENTS...
    local status=$1 regex=$2

    shift 2
    twin compare "$@"
    is "$twin_status" "$status" "status of: compare $*"
    like "$twin_output$twin_errors" "$regex" "text of: compare $*"
}

random_file a.raw 4194304
cp a.raw same.raw
qimg convert -f raw -O qcow2 a.raw a.qcow2
qimg convert -c -f raw -O qcow2 -o compression_type=zstd a.raw packed.qcow2
cp a.raw first.raw
cp a.raw last.raw
cp a.raw middle.raw
perl -e 'for (@ARGV) { my ($file, $at) = split /,/; open(my $f, "+<", $file) or die; seek($f, $at, 0);
    read($f, my $byte, 1); seek($f, $at, 0); print $f chr(ord($byte) ^ 1); }' first.raw,0 last.raw,4194303 middle.raw,2097153
cp a.raw longer.raw
truncate -s 5M longer.raw
cp longer.raw dirty.raw
peer_io dirty.raw raw "write -P 1 4608k 512"
qimg create -q -f qcow2 zero.qcow2 4M
peer_io zero.qcow2 qcow2 "write -z 0 1M"
qimg create -q -f qcow2 empty.qcow2 4M
truncate -s 4M hole.raw
qimg create -q -f qcow2 -b a.raw -F raw over.qcow2
qimg create -q -f qcow2 -b a.raw -F raw over-longer.qcow2 5M
for file in *.qcow2 *.raw; do
    ln "$file" "ours/$file"
    ln "$file" "peer/$file"
done

raw="-f raw -F raw"
# shellcheck disable=SC2086
{
twin_status_is 0 "identical" $raw a.raw same.raw
twin_status_is 0 "identical" $raw a.raw a.raw
twin_status_is 0 "identical" -f raw -F qcow2 a.raw a.qcow2
twin_status_is 0 "identical" -f qcow2 -F qcow2 a.qcow2 packed.qcow2
twin_status_is 0 "identical" -f qcow2 -F qcow2 over.qcow2 packed.qcow2
twin_status_is 1 "mismatch at offset 0!" $raw a.raw first.raw
twin_status_is 1 "mismatch at offset 2097152!" $raw a.raw middle.raw
twin_status_is 1 "mismatch at offset 4193792!" $raw a.raw last.raw
twin_status_is 1 "mismatch at offset 0!" -f qcow2 -F raw packed.qcow2 first.raw
twin_status_is 0 "size mismatch" $raw a.raw longer.raw
twin_status_is 0 "size mismatch" $raw longer.raw a.raw
twin_status_is 0 "size mismatch" -f qcow2 -F raw over-longer.qcow2 a.raw
twin_status_is 1 "size mismatch" $raw -s a.raw longer.raw
twin_status_is 1 "mismatch" $raw a.raw dirty.raw
twin_status_is 1 "mismatch" $raw dirty.raw a.raw
twin_status_is 1 "mismatch" $raw dirty.raw longer.raw
twin_status_is 0 "identical" -f qcow2 -F raw empty.qcow2 hole.raw
twin_status_is 0 "identical" -f qcow2 -F qcow2 empty.qcow2 zero.qcow2
twin_status_is 1 "[sS]trict" -s -f qcow2 -F qcow2 empty.qcow2 zero.qcow2
twin_status_is 0 "identical" -s -f qcow2 -F qcow2 a.qcow2 a.qcow2
twin_status_is 0 "" -q $raw a.raw same.raw
twin_status_is 1 "" -q $raw a.raw first.raw
is "$twin_output$twin_errors" "" "quiet"
twin_status_is 2 "missing" $raw a.raw missing
twin_status_is 2 "qcow2" -f qcow2 -F raw a.raw a.raw
twin_status_is 2 "nosuch" -f nosuch a.raw a.raw
twin_status_is 1 "two" a.raw
twin_status_is 1 "two" a.raw a.raw a.raw
twin_status_is 1 "nosuch" --nosuch a.raw a.raw
twin_status_is 0 "identical" -U $raw a.raw same.raw
twin_status_is 0 "identical" --image-opts driver=raw,file.filename=a.raw driver=qcow2,file.filename=packed.qcow2
}

# The first in the order of the offsets counts: a difference or an error, on either side.
bad() {     # FILE SECTOR: the file, of which that sector cannot be read
    echo "driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=$1,file.inject-error.0.event=none,\
file.inject-error.0.iotype=read,file.inject-error.0.sector=$2"
}
good() {
    echo "driver=raw,file.filename=$1"
}
opts="--image-opts"
twin_status_is 4 "reading offset 2097152" $opts "$(bad a.raw 4100)" "$(good same.raw)"
twin_status_is 4 "reading offset 2097152" $opts "$(good same.raw)" "$(bad a.raw 4100)"
twin_status_is 1 "mismatch at offset 0!" $opts "$(bad a.raw 4100)" "$(good first.raw)"
twin_status_is 1 "mismatch at offset 0!" $opts "$(good first.raw)" "$(bad a.raw 4100)"
twin_status_is 4 "reading offset 0" $opts "$(bad a.raw 8)" "$(good last.raw)"
twin_status_is 4 "reading offset 0" $opts "$(bad a.raw 8)" "$(good middle.raw)"
twin_status_is 4 "reading offset 0" $opts "$(good first.raw)" "$(bad a.raw 8)"
twin_status_is 4 "reading offset 4718592" $opts "$(good a.raw)" "$(bad dirty.raw 9216)"
twin_status_is 1 "mismatch" $opts "$(bad dirty.raw 10000)" "$(good a.raw)"

# What two overlays have of one file is the same without being read; what one of them has itself is not.
for name in left right; do
    qimg create -q -f qcow2 -b a.raw -F raw $name.qcow2
    peer_io $name.qcow2 qcow2 "write -P 3 1M 128k"
    ln $name.qcow2 ours/
    ln $name.qcow2 peer/
done
both="-f qcow2 -F qcow2"
# shellcheck disable=SC2086
{
twin_status_is 0 "identical" $both left.qcow2 right.qcow2
peer_io right.qcow2 qcow2 "write -P 4 3M 4k"
twin_status_is 1 "mismatch at offset 3145728!" $both left.qcow2 right.qcow2
}
done_testing
