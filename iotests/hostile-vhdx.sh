#!/bin/bash
# SPDX-License-Identifier: MIT
# VHDX images whose headers, regions, metadata, BAT and log lie: refused by one sentence and not changed; bounded in time and memory. What
# only looks strange is read, and replayed, as by the peer.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
. "$(dirname "$0")/block-formats-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit
FORMAT=vhdx
data=("read -P 1 3M 64k" "read -P 2 7M 64k")

lies() {        # NAME REGEX
    local status=0

    fails "$1" "^[^"$'\n'"]*$2[^"$'\n'"]*$" bounded "$BLKSTACK_IO" -f vhdx -c "write 1M 1k" "images/$1"
    [[ $1 == entry-* ]] || return 0
    bounded "$BLKSTACK_IMG" convert -f vhdx -O raw "images/$1" /dev/null >cmd.out 2>&1 || status=$?
    num_ok "$status < 124" "$1: reading ends by itself"
}

# Logs with which the peer does what the specification does not say: it hangs, or replays what must not be.
peer_errs() {   # NAME
    [[ $1 == log-@(full|torn|of-another|tail-*|number-0|many-*|entry-too-*|more-*|sector-*|largest-*|lengthens|without-entries) ]]
}

sound_case() {  # NAME
    io_run "$BLKSTACK_IO" -f vhdx "images/$1" -- "${data[@]}" "write -P 9 9M 64k"
    [[ $1 != @(region-table-1|sector-4096) ]] || return 0       # it does not look at the copy, nor know such sectors
    io_run "$QEMU_IO" -r -f vhdx "images/$1" -- "${data[@]}" "read -P 9 9M 64k"
    if ! peer_errs "$1"; then
        io_run "$QEMU_IO" -f vhdx "as-made/$1" -- "${data[@]}" "write -P 9 9M 64k"
        succeeds "$1: the peer's is the same" img compare -f vhdx -F vhdx "images/$1" "as-made/$1"
    fi
}

img create -q -f vhdx -o block_size=2M base 16M
peer_io base vhdx "write -P 1 3M 64k" "write -P 2 7M 64k"
mkdir images
python3 "$BLKSTACK_SOURCE/iotests/vhdx_craft.py" base images >cases
cp -r --sparse=always images as-made
while IFS='|' read -r name words <&3; do
    if [ -n "$words" ]; then lies "$name" "$words"; else sound_case "$name"; fi
done 3<cases
num_ok "$(wc -l <cases) > 100" "all cases were tried"
is "$(diff -qr images as-made | sed -n 's/^Files images.\(.*\) and .*/\1/p' | grep -Fxf <(grep '|.' cases | cut -d '|' -f 1) || true)" "" \
    "what was refused is as it was"

# Damage of the BAT is found, and what is not damaged can be read.
for name in entry-partial entry-in-log entry-behind-end entry-twice; do
    status=0
    img check -f vhdx "images/$name" >cmd.out 2>&1 || status=$?
    is "$status" 2 "$name: check finds it"
    like "$(cat cmd.out)" "ERROR: BAT" "$name: and says what"
    io_run "$BLKSTACK_IO" -r -f vhdx "images/$name" -- "${data[@]}"
done
: >empty
refused "an empty file" "not in VHDX format" empty
done_testing
