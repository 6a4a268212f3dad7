#!/bin/bash
# SPDX-License-Identifier: MIT
# A bitmap is marked as in use from before the first change until it is stored. A program that is killed in between leaves
# a bitmap that nobody trusts and that can be removed; a bitmap that did not record, and an image that was not changed, lose nothing.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/bitmap-lib.inc"

# Runs blkstack-io, lets it do COMMAND..., looks at the image, and kills it.
killed_after() { # COMMAND...
    local line pid

    coproc IO { exec "$BLKSTACK_IO" -f qcow2 disk.qcow2 2>&1; }
    pid=$IO_PID         # which is unset when it has ended
    for line in "$@"; do echo "$line"; done >&"${IO[1]}"
    echo "flush" >&"${IO[1]}"
    echo "info" >&"${IO[1]}"
    while read -r line <&"${IO[0]}"; do
        if [[ $line == *"format specific"* || $line == *"vm state offset"* ]]; then break; fi
    done
    in_use=$(flags disk.qcow2 on)/$(flags disk.qcow2 off)
    kill -9 "$pid"
    wait "$pid" 2>/dev/null || true
}

new_disk() {
    new_image 4M
    img bitmap --add -g 4k disk.qcow2 on
    pio disk.qcow2 "write -P 1 0 64k"
    img bitmap --add disk.qcow2 off
    img bitmap --merge on --disable disk.qcow2 off
}

label="killed before a change"
new_disk
killed_after "read 0 64k"
is "$in_use" "auto/" "nothing is marked while nothing changes"
is_dirty disk.qcow2 on 0+65536 "and nothing is lost"

for command in "write -P 2 1M 4k" "write -z 2M 64k" "discard 0 64k"; do
    label="killed after: $command"
    new_disk
    killed_after "$command"
    is "$in_use" "in-use auto/" "what records is marked while the image is open"
    is "$(flags disk.qcow2 on)/$(flags disk.qcow2 off)" "in-use auto/" "and stays so"
    is_dirty disk.qcow2 off 0+65536 "what did not record is as it was"
    img check -q -r leaks disk.qcow2 2>/dev/null || true
    judge disk.qcow2 "after leaks are repaired"
    for action in clear enable disable "merge off"; do
        # shellcheck disable=SC2086
        fails "--$action" "Operation ${action% *} on bitmap on failed: Bitmap 'on' is inconsistent and cannot be used" \
            "$BLKSTACK_IMG" bitmap --$action disk.qcow2 on
    done
    fails "--merge" "Bitmap 'on' is inconsistent" "$BLKSTACK_IMG" bitmap --merge on disk.qcow2 off
    fails "convert --bitmaps" "Cannot copy inconsistent bitmap 'on'" \
        "$BLKSTACK_IMG" convert --bitmaps -O qcow2 disk.qcow2 copy.qcow2
    fails "resize" "Bitmap 'on' is inconsistent" "$BLKSTACK_IMG" resize disk.qcow2 8M
    pio disk.qcow2 "write -P 3 0 64k"
    is "$(flags disk.qcow2 on)/$(flags disk.qcow2 off)" "in-use auto/" "other sessions leave it as it is"
    succeeds "--remove" img bitmap --remove disk.qcow2 on
    succeeds "resize then" img resize -q disk.qcow2 8M
    is_dirty disk.qcow2 off 0+65536 "the other one is still there"
    judge disk.qcow2 "at last"
done

label="the peer was killed"
new_disk
coproc IO { exec "$QEMU_IO" -f qcow2 disk.qcow2; }
pid=$IO_PID
echo "write 3M 4k" >&"${IO[1]}"
while read -r line <&"${IO[0]}"; do
    if [[ $line == *"4 KiB, 1 ops"* ]]; then break; fi
done
kill -9 "$pid"
wait "$pid" 2>/dev/null || true
is "$(img info --output=json disk.qcow2 | python3 -c 'import json, sys
print([b["flags"] for b in json.load(sys.stdin)["format-specific"]["data"]["bitmaps"]])')" \
    "[['in-use', 'auto'], ['in-use']]" "info shows it"
fails "--merge" "Bitmap 'off' is inconsistent" "$BLKSTACK_IMG" bitmap --merge on disk.qcow2 off
succeeds "--remove" img bitmap --remove disk.qcow2 on
succeeds "--remove" img bitmap --remove disk.qcow2 off
img check -q -r leaks disk.qcow2 2>/dev/null || true
judge disk.qcow2 "all removed"

label="a program that does not know bitmaps"
new_disk
printf '\0\0\0\0\0\0\0\0' | dd of=disk.qcow2 bs=1 seek=88 conv=notrunc status=none
like "$(img info disk.qcow2 2>&1)" "does not know dirty bitmaps" "info says that they are lost"
unlike=$(img info disk.qcow2 2>/dev/null)
is "${unlike/bitmaps/}" "$unlike" "and does not show them"
fails "--remove" "Dirty bitmap 'on' not found" "$BLKSTACK_IMG" bitmap --remove disk.qcow2 on
status=0
img check -q disk.qcow2 2>/dev/null || status=$?
is $status 3 "their space is leaked"
succeeds "check -r leaks gives it back" img check -q -r leaks disk.qcow2
judge disk.qcow2 "as if there had been none"
succeeds "a new one" img bitmap --add disk.qcow2 on
pio disk.qcow2 "write 1M 64k"
is_dirty disk.qcow2 on 1048576+65536 "records"
judge disk.qcow2 "with a new bitmap"
done_testing
