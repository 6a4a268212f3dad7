#!/bin/bash
# SPDX-License-Identifier: MIT
# dmg images whose numbers, lists and chunks lie: refused with one message, or an error of the chunk that lies; in
# bounded memory.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires python3 prlimit
craft="$BLKSTACK_SOURCE/iotests/dmg_craft.py"

text_file model.raw 256k
export SEED=1
for case in $(python3 "$craft" list refused); do
    python3 "$craft" model.raw disk.dmg zr "$case"
    sum=$(sha256sum <disk.dmg)
    ends 1 1 "$case: info" "$BLKSTACK_IMG" info -f dmg disk.dmg
    ends 1 1 "$case: convert" "$BLKSTACK_IMG" convert -f dmg -O raw disk.dmg out.raw
    is "$(sha256sum <disk.dmg)" "$sum" "$case: the image is as it was"
    [[ $case != count-* ]] || fails "$case: the reason" "has room for" img info -f dmg disk.dmg    # what is behind may look right
done
for case in $(python3 "$craft" list read-fails); do
    python3 "$craft" model.raw disk.dmg zr "$case"
    ends 0 20 "$case: info" "$BLKSTACK_IMG" info -f dmg disk.dmg
    survives "$case: map" "$BLKSTACK_IMG" map -f dmg disk.dmg
    ends 1 4 "$case: convert" "$BLKSTACK_IMG" convert -f dmg -O raw disk.dmg out.raw
done
done_testing
