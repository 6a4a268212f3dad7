#!/bin/bash
# SPDX-License-Identifier: MIT
# NBD servers that lie, talk rubbish, vanish or fall silent: one clear error each, no crash, no hang, and no data from nowhere.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires python3

negotiation=(vanish-{1..7} garbage-{1,2,5,7})
silence=(silent-{1,5,7})
strange_and_wrong=(long-error size-huge block-3)
strange=(size-0 size-odd block-huge)         # one can live with it; libnbd ignores such a block size
status=(status-past-end status-far-past-end status-zero-length status-empty status-other-context status-half-extent
    status-nothing context-changes)
reads=(read-larger read-elsewhere read-before read-nothing read-half read-huge-chunk read-other-handle read-strange-kind
    read-strange-error read-bad-magic read-stops)
serve_on "$nbd_dir/none" python3 "$BLKSTACK_SOURCE/iotests/nbd_bad_server.py" "$nbd_dir" "${negotiation[@]}" "${silence[@]}" \
    "${strange_and_wrong[@]}" "${strange[@]}" "${status[@]}" "${reads[@]}" none

choose() {      # FAULT
    label=$1
    nbd_uri="nbd+unix://?socket=$nbd_dir/$1"
}

# The command fails, in few words that can be shown on a terminal: the loss of a connection, a new one, and what failed.
refused() {     # DESCRIPTION REGEX COMMAND...
    fails "$1" "$2" timeout 20 "${@:3}"
    num_ok "$(wc -l <cmd.out) <= 3 && $(wc -c <cmd.out) < 2000" "in few words"
    is "$(LC_ALL=C tr -d '\n\040-\176\200-\377' <cmd.out | wc -c)" 0 "that can be printed"
}

choose none
succeeds "it serves" img convert -f raw -O raw "$nbd_uri" good.raw
is "$(img map -f raw --output=json "$nbd_uri" | grep -c '"length": 1048576')" 1 "and knows its block status"

for fault in "${negotiation[@]}"; do        # which takes seven messages
    choose "$fault"
    refused "info" "Failed to connect to 'nbd\+unix" "$BLKSTACK_IMG" info "$nbd_uri"
done
for fault in "${silence[@]}"; do
    choose "$fault"
    refused "info, with open-timeout" "Failed to connect .*timed out" \
        "$BLKSTACK_IMG" info --image-opts "driver=nbd,path=$nbd_dir/$fault,open-timeout=1"
done
for fault in "${strange_and_wrong[@]}"; do
    choose "$fault"
    refused "info" "." "$BLKSTACK_IMG" info -f raw "$nbd_uri"
done
for fault in "${strange[@]}"; do
    choose "$fault"
    succeeds "convert" img convert -f raw -O raw "$nbd_uri" out.raw
done
for fault in "${status[@]}"; do
    choose "$fault"
    refused "map" "." "$BLKSTACK_IMG" map -f raw "$nbd_uri"
    refused "convert" "." "$BLKSTACK_IMG" convert -f raw -O raw "$nbd_uri" out.raw
done
for fault in "${reads[@]}"; do
    choose "$fault"
    refused "a read" "read failed: " "$BLKSTACK_IO" -f raw -c "read 0 64k" "$nbd_uri"
done
for fault in read-larger read-stops; do
    choose "$fault"
    refused "a server that stays so, with reconnect-delay" "read failed: " \
        "$BLKSTACK_IO" --image-opts "driver=raw,file.driver=nbd,file.path=$nbd_dir/$fault,file.reconnect-delay=1" -c "read 0 64k"
done
done_testing
