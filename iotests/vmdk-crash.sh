#!/bin/bash
# SPDX-License-Identifier: MIT
# Crashes of vmdk: what log-writes recorded below sparse images is replayed up to every flush, and with some of the
# unflushed writes missing, or all but the last. The image has no errors but redundant tables that lag behind, and what
# was flushed is there; the content ID is another one as soon as the content is.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/crash-lib.inc"
. "$(dirname "$0")/vmdk-lib.inc"
any_backend
requires qemu-img qemu-io python3

cid() { img info -f vmdk --output=json "$1" | sed -n 's/^ *"cid": \([0-9]*\),*$/\1/p'; }

state() {       # ENTRIES [CHANCE | last]
    local flushed status=0

    cp start.vmdk state.vmdk
    replay replay log state.vmdk "$@"
    flushed=$(replay mark log "$1")
    qimg check -q -f vmdk state.vmdk >check.out 2>&1 || status=$?
    is "$status" 0 "entries $*: the peer finds no errors"
    img check -q -f vmdk --data -r all state.vmdk >check.out 2>&1 || true
    succeeds "entries $*: nothing but redundant tables is repaired" img check -q -f vmdk --data state.vmdk
    qimg convert -f vmdk -O raw state.vmdk state.raw
    succeeds "entries $*: what was flushed is there" model check "$SEED" "${flushed:-0}" state.raw
    if [ "$(cid state.vmdk)" = "$start_cid" ]; then
        succeeds "entries $*: with the old content ID there is the old content" cmp state.raw start.raw
    fi
}

crashes() {     # OPTIONS KIND: bare, full or empty
    local number

    label="$1 $2"
    rm -f disk.vmdk
    img create -q -f vmdk -o "$1" disk.vmdk 1M
    if [ "$2" = full ]; then            # all grains are there, and overwritten where they lie
        vio disk.vmdk "write -P 0 0 1M"
    elif [ "$2" = bare ]; then          # no tables: they are made when they are needed
        python3 -c '
with open("disk.vmdk", "r+b") as f:
    for sector in (21, 26):
        f.seek(sector * 512)
        f.write(bytes(4))'
    fi
    cp disk.vmdk start.vmdk
    qimg convert -f vmdk -O raw start.vmdk start.raw
    start_cid=$(cid start.vmdk)
    : >log
    for number in 1 2; do
        record vmdk disk.vmdk "$number"
    done
    for number in $(replay borders log); do
        if ((number > 1)); then
            state "$((number - 1))" "$SEED.$number"
            state "$((number - 1))" last
        fi
        [ "$2" = full ] || state "$number"
    done
    cp start.vmdk state.vmdk
    replay replay log state.vmdk
    succeeds "the replay of all of it is the image" cmp state.vmdk disk.vmdk
}

say_seed
crashes subformat=monolithicSparse empty
crashes subformat=monolithicSparse full
crashes zeroed_grain=on bare
done_testing
