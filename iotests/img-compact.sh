#!/bin/bash
# SPDX-License-Identifier: MIT
# compact makes any image about as small as a fresh conversion, in place: plain ones, ones that the peer packed to the
# byte and left full of holes, small clusters with many refcount blocks, extended entries; beside backing files, snapshots
# and bitmaps it keeps what they need. Killed in the middle it leaves a sound image, and the next run ends the work.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io
# timeout: 300

allocated() { echo $(($(stat -c %b "$1") * 512)); }

# The image has the content of model.raw, is sound, and its allocated size and length are at most 1.02 of a fresh one's,
# where 64 KiB more are none.
small() {       # TEXT [CREATE-OPTIONS]
    img convert -c -f qcow2 -O qcow2 ${2:+-o "$2"} disk.qcow2 fresh.qcow2
    diag "$1: $(allocated disk.qcow2) of $(allocated fresh.qcow2) bytes, length $(stat -c %s disk.qcow2) of $(stat -c %s fresh.qcow2)"
    num_ok "$(allocated disk.qcow2) * 100 <= ($(allocated fresh.qcow2) + 65536) * 102" "$1: as small as a fresh one"
    num_ok "$(stat -c %s disk.qcow2) * 100 <= ($(stat -c %s fresh.qcow2) + 65536) * 102" "$1: and as short"
    same disk.qcow2 model.raw "$1"
    judge disk.qcow2 "$1"
}

# Every other cluster away, then half of these again, elsewhere and with other data.
make_holes() {  # FILE CLUSTERS
    local i
    local -a away=() again=()

    for ((i = 0; i < $2; i += 2)); do
        away+=(-c "discard -q $((i * 64))k 64k")
    done
    for ((i = 0; i < $2; i += 4)); do
        again+=(-c "write -c -q -s data.raw $((i * 64))k 64k")
    done
    for ((i = 2; i < $2; i += 16)); do
        again+=(-c "write -q -P $((i % 255 + 1)) $((i * 64))k 64k")
    done
    qio -f qcow2 "${away[@]}" "${again[@]}" "$1" >io.out
}

random_file noise.raw 4194304
text_file text.raw 20971520
cat text.raw noise.raw >data.raw
truncate -s 33554432 data.raw

cp data.raw model.raw
qimg convert -f raw -O qcow2 data.raw disk.qcow2
succeeds "a plain image" "$BLKSTACK_IMG" compact -f qcow2 disk.qcow2
like "$(cat cmd.out)" '^Image compacted: .* before, .* now\.$' "says what was won"
small "plain"
sum=$(sha256sum <disk.qcow2)
succeeds "once more" "$BLKSTACK_IMG" compact -q disk.qcow2
is "$(sha256sum <disk.qcow2)" "$sum" "nothing changes then"

for codec in zlib zstd; do
    qimg convert -c -f raw -O qcow2 -o compression_type=$codec data.raw disk.qcow2
    make_holes disk.qcow2 512
    qimg convert -f qcow2 -O raw disk.qcow2 model.raw
    succeeds "$codec, the peer's, with holes" "$BLKSTACK_IMG" compact -p disk.qcow2
    like "$(tr '\r' '\n' <cmd.out)" '\(100\.00/100%\)' "with progress"
    small "$codec, the peer's" compression_type=$codec
done

qimg convert -c -f raw -O qcow2 -o cluster_size=4k,refcount_bits=64 data.raw disk.qcow2
make_holes disk.qcow2 512
qimg convert -f qcow2 -O raw disk.qcow2 model.raw
succeeds "small clusters" "$BLKSTACK_IMG" compact -q disk.qcow2
small "small clusters" cluster_size=4k,refcount_bits=64

qimg convert -f raw -O qcow2 -o extended_l2=on data.raw disk.qcow2
qio -f qcow2 -c "write -q -P 5 100k 2k" -c "discard -q 1M 512k" -c "write -z -q 2M 6k" disk.qcow2
qimg convert -f qcow2 -O raw disk.qcow2 model.raw
succeeds "extended entries" "$BLKSTACK_IMG" compact -q disk.qcow2
small "extended entries" extended_l2=on

# What lies in the backing file stays there.
qimg convert -f raw -O qcow2 data.raw base.qcow2
qimg create -q -f qcow2 -b base.qcow2 -F qcow2 disk.qcow2
qio -f qcow2 -c "write -q -s noise.raw 1M 1M" -c "write -q -P 3 5M 1M" -c "write -q -P 4 8M 4k" -c "write -q -z 9M 1M" disk.qcow2
qio -f qcow2 -c "write -q -P 9 1M 1M" disk.qcow2
qimg convert -f qcow2 -O raw disk.qcow2 model.raw
before=$(qimg map -f qcow2 --output=json disk.qcow2 | grep -o '"depth": [0-9]*' | sort | uniq -c | tr '\n' ' ')
succeeds "with a backing file" "$BLKSTACK_IMG" compact -q disk.qcow2
same disk.qcow2 model.raw "with a backing file"
judge disk.qcow2 "with a backing file"
num_ok "$(allocated disk.qcow2) < 524288" "with a backing file: small"
isnt "$(qimg map -f qcow2 --output=json disk.qcow2 | grep -c '"depth": 1')" 0 "it is still needed: before $before"

# Snapshots and bitmaps keep what they need.
qimg convert -f raw -O qcow2 data.raw disk.qcow2
qimg snapshot -c one disk.qcow2
qimg bitmap --add disk.qcow2 map
qio -f qcow2 -c "write -q -P 1 0 8M" -c "discard -q 10M 4M" disk.qcow2
qimg convert -f qcow2 -O raw disk.qcow2 model.raw
succeeds "with a snapshot and a bitmap" "$BLKSTACK_IMG" compact -q disk.qcow2
same disk.qcow2 model.raw "the active state"
judge disk.qcow2 "with a snapshot and a bitmap"
qimg convert -f qcow2 -l one -O raw disk.qcow2 one.raw
succeeds "the snapshot" cmp one.raw data.raw
like "$(qimg info disk.qcow2)" 'name: map' "the bitmap"

# Not compressing: only packed.
qimg convert -f raw -O qcow2 data.raw disk.qcow2
qio -f qcow2 -c "discard -q 0 8M" disk.qcow2
qimg convert -f qcow2 -O raw disk.qcow2 model.raw
succeeds "without compression" "$BLKSTACK_IMG" compact -q --no-compress disk.qcow2
is "$(check_number disk.qcow2 compressed-clusters)" 0 "no cluster is compressed"
num_ok "$(stat -c %s disk.qcow2) < 18 << 20" "but the file is short"
same disk.qcow2 model.raw "without compression"
judge disk.qcow2 "without compression"

# Killed again and again, each time later.
qimg convert -c -f raw -O qcow2 data.raw killed.qcow2
make_holes killed.qcow2 512
qimg convert -f qcow2 -O raw killed.qcow2 model.raw
killed=0
for delay in 0.02 0.05 0.08 0.12 0.16 0.2 0.25 0.3; do
    cp killed.qcow2 disk.qcow2
    run_killed "$delay" "$BLKSTACK_IMG" compact -q disk.qcow2
    sound_after_kill disk.qcow2 "killed after $delay s"
    same disk.qcow2 model.raw "killed after $delay s"
    cp disk.qcow2 killed.qcow2
done
num_ok "killed > 0" "$killed runs were killed"
succeeds "the next run ends the work" "$BLKSTACK_IMG" compact -q disk.qcow2
small "in the end"

fails "raw" "cannot be compacted" "$BLKSTACK_IMG" compact -f raw model.raw
done_testing
