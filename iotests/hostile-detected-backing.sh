#!/bin/bash
# SPDX-License-Identifier: MIT
# An image whose format was only detected may have a backing file in its own directory and nowhere else; with the format
# given, anywhere. The same holds for every image below it.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img prlimit

overlay() {     # FILE BACKING-NAME FORMAT: any name, unopened
    qimg create -q -f qcow2 -u -b "$2" -F "$3" "$1" 1M
}

refused() {     # TEXT FILE
    local sum

    sum=$(sha256sum <"$2")
    ends 1 1 "$1: read" "$BLKSTACK_IO" -r -c "read 0 64k" "$2"
    like "$(cat cmd.out)" "was detected, not given.*give the format 'qcow2'" "$1: what to do"
    ends 1 1 "$1: write" "$BLKSTACK_IO" -c "write 0 64k" "$2"
    ends 1 1 "$1: convert" "$BLKSTACK_IMG" convert -O raw "$2" out.raw
    ends 1 1 "$1: map" "$BLKSTACK_IMG" map "$2"
    ends 0 30 "$1: info" "$BLKSTACK_IMG" info "$2"
    is "$(sha256sum <"$2")" "$sum" "$1: the image is as it was"
}

reads() {       # TEXT IO-OPTION...
    ends 0 2 "$1: read" "$BLKSTACK_IO" -r -c "read -P 7 0 64k" "${@:2}"
    is "$(grep -c failed cmd.out || true)" 0 "$1: the data of the backing file"
}

mkdir in out
for dir in in out; do
    qio -f raw -c "write -q -P 7 0 1M" "$(truncate -s 1M $dir/base.raw; echo $dir/base.raw)" >/dev/null
done
ln -s ../out/base.raw in/link.raw
ln -s ../out in/dir

here=$PWD
overlay in/beside.qcow2 base.raw raw
overlay in/beside-absolute.qcow2 "$here/in/base.raw" raw
overlay in/beside-dotted.qcow2 ../in/./base.raw raw
overlay in/outside.qcow2 ../out/base.raw raw
overlay in/outside-absolute.qcow2 "$here/out/base.raw" raw
overlay in/outside-by-link.qcow2 link.raw raw
overlay in/outside-by-directory-link.qcow2 dir/base.raw raw
overlay in/outside-by-protocol.qcow2 "file:$here/out/base.raw" raw
overlay in/outside-by-json.qcow2 "json:{\"driver\":\"raw\",\"filename\":\"$here/out/base.raw\"}" raw
overlay in/below.qcow2 outside.qcow2 qcow2

for name in beside beside-absolute beside-dotted; do
    reads "$name" "in/$name.qcow2"
done
for name in outside outside-absolute outside-by-link outside-by-directory-link outside-by-protocol outside-by-json below
do
    refused "$name" "in/$name.qcow2"
    reads "$name, format given" -f qcow2 "in/$name.qcow2"
done

# The user gave the format of the overlay, which does not say what its backing file is: that one is only detected.
"$(dirname "$0")/craft.py" in/below.qcow2 unnamed-format backing-format-removed
ends 1 1 "a backing format that is not told" "$BLKSTACK_IO" -r -f qcow2 -c "read 0 64k" in/below.qcow2
like "$(cat cmd.out)" "was detected, not given" "a backing format that is not told: why"
below=backing.driver=qcow2,backing.file.filename=in/outside.qcow2
reads "driver options tell everything" --image-opts \
    driver=qcow2,file.filename=in/below.qcow2,"$below"
done_testing
