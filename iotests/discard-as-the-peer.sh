#!/bin/bash
# SPDX-License-Identifier: MIT
# Discards and zeroes, with and without unmap, change mappings as the peer changes them: versions 2 and 3, over a backing file, with a
# snapshot, with discard=ignore, and with detect-zeroes, through the compress filter too.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

# What the map says of each extent, without where it lies; neighbours that say the same are one.
map_of() {      # FILE
    qimg map -f qcow2 --output=json "$1" | perl -ne '
        next unless /"start": (\d+), "length": (\d+), "depth": (\d+).*"zero": (\w+), "data": (\w+)(, "offset")?/;
        my $zero = $5 eq "true" ? "" : " zero $4";      # holes in the file are its own affair
        my $what = "depth $3$zero data $5" . ($6 ? " placed" : "");
        if (@runs && $runs[-1][2] eq $what) { $runs[-1][1] += $2 } else { push @runs, [$1, $2, $what] }
        END { print join(" ", @$_), "\n" for @runs }'
}

# The same commands on ours.qcow2 and peer.qcow2, made alike; then the same map and the same bytes.
both_do() {     # DESCRIPTION NODE-OPTIONS COMMAND...
    local description=$1 options=$2

    shift 2
    io_run "$BLKSTACK_IO" --image-opts "driver=qcow2,file.filename=ours.qcow2$options" -- "$@"
    io_run "$QEMU_IO" --image-opts "driver=qcow2,file.filename=peer.qcow2$options" -- "$@"
    is "$(map_of ours.qcow2)" "$(map_of peer.qcow2)" "$description: the same map"
    same ours.qcow2 peer.qcow2 "$description"
    judge ours.qcow2 "$description"
}

new_pair() {    # CREATE-OPTIONS...
    rm -f ours.qcow2 peer.qcow2
    qimg create -q -f qcow2 "$@" ours.qcow2 1M
    peer_io ours.qcow2 qcow2 "write -P 1 0 512k" "write -c -P 2 512k 64k" "write -z 576k 64k"
    cp ours.qcow2 peer.qcow2
}

qimg create -q -f raw base.raw 1M
peer_io base.raw raw "write -P 0xbb 0 1M"
for options in "-o compat=1.1" "-o compat=0.10" "-o compat=1.1 -b base.raw -F raw" "-o compat=0.10 -b base.raw -F raw"; do
    label=$options
    # shellcheck disable=SC2086
    new_pair $options
    both_do "discard" ,discard=unmap "discard 64k 128k" "discard 512k 64k" "discard 1000k 24k"
    both_do "discards that are ignored" ,discard=ignore "discard 0 64k" "discard 256k 64k"
    both_do "no whole clusters" ,discard=unmap "discard 300k 10k" "discard 255k 66k"
    both_do "zeroes" ,discard=unmap "write -z 384k 64k" "write -z 400k 100k" "write -P 3 384k 4k"
    both_do "zeroes with unmap" ,discard=unmap "write -z -u 0 64k" "write -z -u 448k 64k"
    both_do "zeroes with unmap, discard=ignore" ,discard=ignore "write -z -u 192k 64k"
    both_do "written again" ,discard=unmap "write -P 4 0 1M"
done

# Below another node the option of the file says whether holes are made.
for options in "" ,discard=unmap ,file.discard=ignore ,file.discard=unmap,discard=unmap; do
    for file in ours.raw peer.raw; do
        rm -f $file
        qimg create -q -f raw $file 1M
        peer_io $file raw "write -P 1 0 1M"
    done
    label="raw$options"
    opts=driver=raw,file.driver=file$options,file.filename
    io_run "$BLKSTACK_IO" --image-opts $opts=ours.raw -- "write -z -u 0 256k" "write -z 256k 256k"
    io_run "$QEMU_IO" --image-opts $opts=peer.raw -- "write -z -u 0 256k" "write -z 256k 256k"
    is "$(file_blocks ours.raw)" "$(file_blocks peer.raw)" "the same space is given back"
    same ours.raw peer.raw
done
label="file"
for program in "$BLKSTACK_IO" "$QEMU_IO"; do
    peer_io ours.raw raw "write -P 1 0 1M"
    io_run "$program" --image-opts driver=file,filename=ours.raw,discard=ignore -- "write -z -u 0 256k"
    num_ok "$(file_blocks ours.raw) == 786432" "$(basename "$program"): a file that a user has directly"
done

label="a snapshot"
new_pair
for file in ours peer; do qimg snapshot -c s $file.qcow2; done
# Zeroes keep no cluster that the snapshot has too; the peer lets the entry refer to it.
both_do "discard and zeroes" ,discard=unmap "discard 64k 128k" "write -z -u 256k 64k" "write -z -u 384k 64k"
qimg convert -f qcow2 -l s -O raw ours.qcow2 ours.raw
qimg convert -f qcow2 -l s -O raw peer.qcow2 peer.raw
same ours.raw peer.raw "the snapshot"

label="detect-zeroes"
new_pair
both_do "off" ,discard=unmap "write -P 0 0 64k"
both_do "on" ,discard=unmap,detect-zeroes=on "write -P 0 64k 64k" "write -P 0 128k 32k" "write -P 0 512k 64k"
both_do "unmap" ,discard=unmap,detect-zeroes=unmap "write -P 0 256k 64k" "write -P 5 320k 64k"
new_pair
io_run "$BLKSTACK_IO" --image-opts "driver=compress,discard=unmap,detect-zeroes=unmap,$(filter_opts ours.qcow2 |
    cut -d, -f2-)" -- "write -P 0 0 64k" "write -P 5 64k 64k" "write -P 0 128k 64k"
like "$(map_of ours.qcow2)" $'^0 65536 depth 0 zero true data false\n65536 ' "through the compress filter"
is "$(check_number ours.qcow2 compressed-clusters)" 2 "what is not zeroes is compressed"
judge ours.qcow2 "through the compress filter"
fails "detect-zeroes=unmap without discard=unmap" "discard=unmap" io --image-opts \
    driver=qcow2,file.filename=ours.qcow2,discard=ignore,detect-zeroes=unmap -c "read 0 4k"
done_testing
