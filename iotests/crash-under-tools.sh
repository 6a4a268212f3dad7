#!/bin/bash
# SPDX-License-Identifier: MIT
# Crashes while a tool changes an image: what log-writes recorded below compact, snapshot, rebase, commit and convert -c is
# replayed up to every flush, and with some unflushed changes missing. The peer finds no errors (leaks at most; an image that
# is marked dirty is repaired when it is opened for writing), and the content that it is to have.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io python3

reader() { python3 "$BLKSTACK_SOURCE/iotests/replay_log.py" "$@"; }

# The options that put a recorder below the qcow2 image FILE.
recorded() {    # FILE [PREFIX]
    cp "$1" start.qcow2
    : >log
    echo "${2:-}driver=qcow2,${2:-}file.driver=log-writes,${2:-}file.log.driver=file,${2:-}file.log.filename=log" \
        "${2:-}file.file.driver=file,${2:-}file.file.filename=$1" | tr ' ' ,
}

# What a crash leaves in state.qcow2. FUNCTION judges the content.
state() {       # FUNCTION ENTRIES [CHANCE | last]
    local status=0 judge=$1

    shift
    cp start.qcow2 state.qcow2
    reader replay log state.qcow2 "$@"
    if qimg info -f qcow2 --output=json state.qcow2 | grep -q '"dirty-flag": true'; then
        marked=$((marked + 1))
        pio state.qcow2 "read 0 512"        # opened for writing
    fi
    qimg check -q -f qcow2 state.qcow2 >check.out 2>&1 || status=$?
    num_ok "$status == 0 || $status == 3" "after $*: no errors, at most leaks"
    succeeds "after $*: the content" "$judge"
}

# Replays what COMMAND wrote: at each STEP-th flush, all of it, or of what it was for the last change or some by chance.
crashes() {     # FUNCTION STEP COMMAND...
    local number judge=$1 step=$2 turn=0

    shift 2
    label="$2 $3"
    succeeds "it runs" "$@"
    for number in $(reader borders log); do
        turn=$((turn + 1))
        if ((turn % step == 0 && number > 1)); then
            state "$judge" $((number - 1)) last
            if ((turn / step % 2)); then
                state "$judge" $((number - 1)) "$SEED.$number"
            else
                state "$judge" "$number"
            fi
        fi
    done
    state "$judge" "$(reader list log | wc -l)"
    diag "$label: $(reader list log | wc -l) entries, $turn flushes"
    label=
}

holds() { qimg convert -f qcow2 -O raw "$1" state.raw && cmp state.raw "$2"; }
same_disk() { holds state.qcow2 model.raw; }
same_disk_and_snapshot() { same_disk && qimg convert -f qcow2 -l old -O raw state.qcow2 s.raw && cmp s.raw old.raw; }
old_or_new() { holds state.qcow2 old.raw || holds state.qcow2 model.raw; }
over_the_state() { qimg rebase -u -f qcow2 -b state.qcow2 -F qcow2 top.qcow2 && holds top.qcow2 model.raw; }

# Of what is not there yet the target has nothing.
part_of_the_model() {
    qimg convert -f qcow2 -O raw state.qcow2 state.raw
    python3 -c '
import sys
have, want = (open(name, "rb").read() for name in sys.argv[1:])
assert len(have) == len(want)
sys.exit(any(have[i:i + 512] not in (want[i:i + 512], bytes(512)) for i in range(0, len(want), 512)))' state.raw model.raw
}

marked=0
text_file text.raw 262144
random_file noise.raw 65536 1
make_image() {  # OPTIONS
    rm -f disk.qcow2
    qimg create -q -f qcow2 -o "$1" disk.qcow2 1M
    peer_io disk.qcow2 qcow2 "write -s text.raw 0 256k" "write -c -s noise.raw 256k 64k" "write -c -P 5 512k 64k"
    qimg convert -f qcow2 -O raw disk.qcow2 old.raw
}

make_image cluster_size=16k
qimg snapshot -c old disk.qcow2
peer_io disk.qcow2 qcow2 "write -P 6 64k 128k" "discard 256k 64k" "write -P 7 700k 100k"
qimg convert -f qcow2 -O raw disk.qcow2 model.raw
crashes same_disk_and_snapshot 1 img snapshot -c new --image-opts "$(recorded disk.qcow2)"
crashes same_disk_and_snapshot 1 img snapshot -d new --image-opts "$(recorded disk.qcow2)"
crashes same_disk_and_snapshot 3 img compact -q --image-opts "$(recorded disk.qcow2)"
crashes old_or_new 1 img snapshot -a old --image-opts "$(recorded disk.qcow2)"
num_ok "$marked > 0" "$marked states were marked dirty"

make_image cluster_size=16k
qimg create -q -f qcow2 -b disk.qcow2 -F qcow2 top.qcow2
peer_io top.qcow2 qcow2 "write -P 8 128k 64k" "write -P 9 800k 64k"
qimg convert -f qcow2 -O raw top.qcow2 model.raw
qimg create -q -f qcow2 other.qcow2 1M
cp top.qcow2 kept.qcow2
crashes same_disk 1 img rebase -b other.qcow2 -F qcow2 --image-opts "$(recorded top.qcow2)"
cp kept.qcow2 top.qcow2
recorder=$(recorded disk.qcow2 backing.)
crashes over_the_state 1 img commit -q -d --image-opts \
    "driver=qcow2,file.driver=file,file.filename=top.qcow2,${recorder}"

qimg create -q -f qcow2 target.qcow2 1M
crashes part_of_the_model 1 img convert -n -c -f raw --target-image-opts model.raw "$(recorded target.qcow2)"
succeeds "all was copied" same_disk
done_testing
