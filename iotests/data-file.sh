#!/bin/bash
# SPDX-License-Identifier: MIT
# External data files: create, info, map, check, resize and convert are the peer's; a raw data file has the disk's bytes after
# every request; the data file is locked, and stable before the image refers to it; nothing is compressed there.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
requires qemu-img qemu-io

map_json() { qimg map -f qcow2 --output=json "$1"; }
# Where all is mapped, the peer looks for holes in the data file; ours tells what the tables say.
maps_agree() {  # FILE TEXT
    is "$(img map -f qcow2 --output=json "$1" | sed 's/"zero": [a-z]*, "data": true/"data": true/' | map_shape)" \
        "$(map_json "$1" | sed 's/"zero": [a-z]*, "data": true/"data": true/' | map_shape)" "$2: map"
}

label=create
for options in "" ,data_file_raw=on ,preallocation=metadata ,preallocation=full,extended_l2=on \
    ,data_file_raw=on,cluster_size=2M,extended_l2=on ,cluster_size=512; do
    twin_ok create -f qcow2 -o "data_file=a.raw$options" a.qcow2 4M
    twin_made a.qcow2 qcow2
    is "$(file_bytes ours/a.raw)" "$(file_bytes peer/a.raw)" "${options#,}: length of the data file"
    is "$(cd ours && img info -f qcow2 a.qcow2)" "$(cd ours && qimg info -f qcow2 a.qcow2)" "${options#,}: info"
    is "$(cd ours && img info -f qcow2 --output=json a.qcow2)" "$(cd ours && qimg info -f qcow2 --output=json a.qcow2)" \
        "${options#,}: info in JSON"
done
twin_fails "requires data_file" create -f qcow2 -o data_file_raw=on x 1M
twin_fails "compat=1.1" create -f qcow2 -o data_file=x.raw,compat=0.10 x 1M
twin_fails "data file name" create -f qcow2 -o data_file= x 1M
twin_fails "json:" create -f qcow2 -o 'data_file=json:{}' x 1M
qimg create -q -f qcow2 ours/base.qcow2 1M
cp ours/base.qcow2 peer/base.qcow2
twin_fails "same time" create -f qcow2 -b base.qcow2 -F qcow2 -o data_file=x.raw,data_file_raw=on x
fails "the image itself is no data file" "is the image itself" img create -f qcow2 -o data_file=x.qcow2 x.qcow2 1M
mkdir -p below
img create -q -f qcow2 -o data_file=d.raw below/a.qcow2 1M
is "$(cd below && ls)" $'a.qcow2\nd.raw' "the name is relative to the image's directory"
pio below/a.qcow2 "write -P 1 0 1M" "read -P 1 0 1M"

# The same on the image and on the model; with a raw data file, that is compared after every command.
run_on_both() { # WHO RAW COMMAND...
    local who=$1 raw=$2 command

    shift 2
    for command; do
        "$who" "$command"
        if [ "$raw" = on ]; then
            if ! cmp -s -n 4096000 data.raw model.raw; then
                not_ok "the data file is the disk after: $command" "$(cmp data.raw model.raw || true)"
            fi
        fi
    done
}

for raw in off on; do
    for extended in off on; do
        for who in both_plain both_peer; do
            label="raw=$raw extended_l2=$extended $who"
            img create -q -f qcow2 -o "data_file=data.raw,data_file_raw=$raw,extended_l2=$extended" disk.qcow2 4000k
            rm -f model.raw
            truncate -s 4000k model.raw
            run_on_both $who $raw "write -P 1 0 1M" "write -P 2 70k 1k" "write -z 64k 64k" "discard 128k 64k" \
                "write -z -u 192k 64k" "write -P 3 130k 3000" "write -z 300k 4k" "write -P 4 3990k 10k" \
                "write -P 5 3M 100k" "discard 3968k 32k" "write -z 3M 1k" "write -P 6 2M 3k" "write -z -u 2M 1k"
            agrees "everything"
            maps_agree disk.qcow2 "everything"
            if [ $who = both_plain ]; then
                is "$(file_bytes data.raw)" 4096000 "the data file is as long as the disk"
            fi
            run_on_both both_plain $raw "write -P 7 100k 100k" "discard 0 1M" "write -P 8 512 512"
            run_on_both both_peer $raw "write -P 9 200k 100k" "write -z 1M 1M"
            agrees "by both programs in turn"
        done
    done
done
label="discard"
new_image 4M -o data_file=data.raw
both_plain "write -P 1 0 4M"
before=$(file_blocks data.raw)
both_plain "discard 1M 2M"
num_ok "$before - $(file_blocks data.raw) >= 2097152" "gives back the space in the data file"

label="backing file"
qimg create -q -f qcow2 base.qcow2 2M
peer_io base.qcow2 qcow2 "write -P 9 0 2M"
new_image 4M -b base.qcow2 -F qcow2 -o data_file=data.raw,extended_l2=on
model_from_image
both_plain "write -P 1 1000 100" "write -P 2 70k 4k" "write -z 200k 2k" "discard 1M 64k" "write -P 3 2047k 2k"
agrees "over a backing file"
maps_agree disk.qcow2 "over a backing file"

label=resize
for raw in off on; do
    for directory in ours peer; do
        # The peer takes the name as relative to where it runs.
        qimg create -q -f qcow2 -o "data_file=$PWD/$directory/a.raw,data_file_raw=$raw" $directory/a.qcow2 1000k
        peer_io $directory/a.qcow2 qcow2 "write -P 1 0 1000k"
    done
    for change in 2M "500k --shrink" 700k "1500k --preallocation=full" "3M --preallocation=metadata"; do
        read -r size option <<<"$change"
        twin resize ${option:+"$option"} a.qcow2 "$size"
        same qcow2:ours/a.qcow2 qcow2:peer/a.qcow2 "raw=$raw: $change"
        judge ours/a.qcow2 "raw=$raw: $change"
        maps_agree ours/a.qcow2 "raw=$raw: $change"
        num_ok "$(file_bytes ours/a.raw) == $(virtual_size ours/a.qcow2)" "raw=$raw: $change: length of the data file"
        if [ $raw = on ]; then
            same raw:ours/a.raw qcow2:ours/a.qcow2 "$change: the data file is the disk"
        fi
    done
done

label=amend
for raw in off on; do
    for option in data_file=n.raw data_file= data_file_raw=off data_file_raw=on; do
        for directory in ours peer; do
            qimg create -q -f qcow2 -o "data_file=$PWD/$directory/a.raw,data_file_raw=$raw" $directory/a.qcow2 1M
        done
        twin amend -f qcow2 -o "$option" a.qcow2
        is "$(cd ours && qimg info -f qcow2 a.qcow2 | grep 'file raw\|file: n')" \
            "$(cd peer && qimg info -f qcow2 a.qcow2 | grep 'file raw\|file: n')" "raw=$raw: $option: info"
    done
done
fails "a raw data file excludes a backing file" "same time" \
    img amend -f qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 ours/a.qcow2
twin_ok measure -O qcow2 -o data_file=x.raw,data_file_raw=on --size 10M

label="internal snapshots"
img create -q -f qcow2 -o data_file=data.raw disk.qcow2 1M
fails "are refused" "external data file" img snapshot -c one disk.qcow2

label="not compressed"
new_image 4M -o data_file=data.raw
both_plain "write -P 1 0 1M"
fails "a compressed write" "Operation not supported" io -f qcow2 -c "write -c 0 64k" disk.qcow2
fails "the compress filter" "cannot rewrite compressed clusters" io --image-opts "$(filter_opts disk.qcow2)" -c "write 0 64k"
fails "convert -c" "ompression not supported" img convert -c -O qcow2 -o data_file=c.raw disk.qcow2 c.qcow2
agrees "as it was"

label=convert
both_plain "write -P 2 2M 3k"
for options in data_file=c.raw data_file=c.raw,data_file_raw=on,extended_l2=on; do
    rm -f c.*
    img convert -f qcow2 -O qcow2 -o $options disk.qcow2 c.qcow2
    same c.qcow2 model.raw "to $options"
    judge c.qcow2 "to $options"
done
is "$(cmp c.raw model.raw)" "" "the raw data file is the disk"
is "$(img compare -f qcow2 -F qcow2 disk.qcow2 c.qcow2)" "Images are identical." "compare"
img convert -f qcow2 -O qcow2 -c disk.qcow2 plain.qcow2
same plain.qcow2 model.raw "from one, compressed"

label=locks
qimg create -q -f qcow2 -o data_file=shared.raw one.qcow2 1M
cp one.qcow2 two.qcow2
fails "nobody writes to a data file that another image reads" 'Failed to get ".*" lock|Failed to get .*lock' \
    img convert -n -f qcow2 -O qcow2 one.qcow2 two.qcow2

label="order of writes"
new_image 4M -o data_file=data.raw
opts=driver=qcow2,file.driver=file,file.filename=disk.qcow2,data-file.driver=blkdebug
opts+=,data-file.inject-error.0.event=none,data-file.inject-error.0.iotype=flush,data-file.inject-error.0.errno=5
opts+=,data-file.image.driver=file,data-file.image.filename=data.raw
io --image-opts "$opts" -c "write -P 1 64k 64k" -c "flush" >flush.out 2>&1 || true
like "$(cat flush.out)" "Input/output error" "a flush fails if the data file cannot be made stable"
is "$(map_json disk.qcow2 | grep -c '"data": true' || true)" 0 "and no mapping to its data has reached the image"
is "$(check_number disk.qcow2 corruptions 2>/dev/null)" 0 "what was reserved for it is only a leak"
done_testing
