#!/bin/bash
# SPDX-License-Identifier: MIT
# Crashes while vdi, vpc and vhdx images are written to: what log-writes recorded below them is replayed up to each
# change, with some unflushed changes missing. What was flushed is there, for both programs, and the image can be written to.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/block-formats-lib.inc"
. "$(dirname "$0")/crash-lib.inc"
any_backend
requires qemu-img qemu-io python3

export CRASH_SECTORS=16384

# What a crash leaves after ENTRIES of the log: RECOVER may open it for writing first; then both programs read it.
crash_state() { # RECOVER ENTRIES [CHANCE | last]
    local recover=$1 generation program

    shift
    cp start state
    replay replay log state "$@"
    generation=$(replay mark log "$1")
    "$recover" state "$*" || return 0
    for program in "$QEMU_IMG" "$BLKSTACK_IMG"; do
        "$program" convert -f "$FORMAT" -O raw state "${program##*/}.raw"
        truncate -s "$((CRASH_SECTORS * 512))" "${program##*/}.raw"
    done
    if ! cmp "${QEMU_IMG##*/}.raw" "${BLKSTACK_IMG##*/}.raw" >crash.out 2>&1 ||
        ! model check "$SEED" "${generation:-0}" "${QEMU_IMG##*/}.raw" >>crash.out 2>&1; then
        not_ok "after $*: both read what was flushed" "generation ${generation:-0}: $(cat crash.out)"
        return 0
    fi
    crash_states=$((crash_states + 1))
}

# Records below the format what GENERATIONS of writes do, and looks at what crashes may leave of it. PREPARE: makes
# something of the image before.
crashes() {     # RECOVER GENERATIONS STEP [PREPARE]
    local generation number graph turn=0
    local -a commands=()

    say_seed
    crash_states=0
    rm -f disk start log
    img create -q -f "$FORMAT" -o "$CREATE" disk "$((CRASH_SECTORS * 512 + 2097152))"
    ${4:+"$4" disk}
    cp disk start
    : >log
    for ((generation = 1; generation <= $2; generation++)); do
        mapfile -t -O "${#commands[@]}" commands < <(model commands "$SEED" "$generation")
        commands+=(flush "mark $generation")
    done
    graph=driver=$FORMAT,file.driver=log-writes,file.file.driver=file,file.file.filename=disk
    io_run "$BLKSTACK_IO" --image-opts "$graph,file.log.driver=file,file.log.filename=log" -- "${commands[@]}"
    for number in $(replay points log); do
        turn=$((turn + 1))
        case $((turn % $3)) in
        0) crash_state "$1" "$number" ;;
        1) crash_state "$1" "$number" "$SEED.$number" ;;
        2) crash_state "$1" "$number" last ;;
        esac
    done
    num_ok "$crash_states > 5" "$crash_states states of $turn hold what was flushed"
}

# The peer's only complaint may be that more blocks are counted than used, which harms nobody. Fewer would: the next
# block goes where the count says.
recover_vdi() { # IMAGE TEXT
    local used counted

    qimg check -q -f vdi "$1" >check.out 2>&1 || true
    read -r used counted < <(sed -n 's/.*blocks mismatch, is \([0-9]*\), should be \([0-9]*\).*/\1 \2/p' check.out; echo 0 0)
    if grep ERROR check.out | grep -qv 'allocated blocks mismatch' || ((used > counted)); then
        not_ok "after $2: the block map" "$(cat check.out)"
        return 1
    fi
    written_to "$@"
}

# Blocks that no entry names, as a crash may leave them: what they hold must not be seen when they are given to others.
leave_orphans() {       # IMAGE
    io_run "$BLKSTACK_IO" -f vdi "$1" -- "write -P 254 0 3M"
    python3 -c '
import struct, sys
with open(sys.argv[1], "r+b") as file:
    head = file.read(512)
    file.seek(struct.unpack_from("<I", head, 0x154)[0])
    file.write(bytes([255]) * 4 * struct.unpack_from("<I", head, 0x180)[0])' "$1"
}

# Every other state is written to, behind what the model writes: a new block must not take what others have.
written_to() {  # IMAGE TEXT
    local tail="$((CRASH_SECTORS * 512)) 2M"

    if ((crash_states % 2)); then
        io_run "$BLKSTACK_IO" -f "$FORMAT" "$1" -- "write -P 9 $tail" "read -P 9 $tail"
        io_run "$QEMU_IO" -f "$FORMAT" "$1" -- "read -P 9 $tail"
    fi
}

# Both programs replay the log, in turn. How long the file was, which a flush makes stable, is not in the log of log-writes.
recover_vhdx() {        # IMAGE TEXT
    local program=$BLKSTACK_IMG

    ((crash_states % 2)) || program=$QEMU_IMG
    truncate -s %1M "$1"
    cp "$1" written                     # the peer writes to no image whose header names a log that has nothing
    if ! qio -f vhdx -c "write -P 1 7M 64k" written >check.out 2>&1; then
        not_ok "after $2: the peer can write" "$(cat check.out)"
    fi
    if ! "$program" check -r all -f vhdx "$1" >check.out 2>&1; then
        not_ok "after $2: ${program##*/} replays the log" "$(cat check.out)"
        return 1
    fi
    if grep -q repaired check.out; then
        crash_replayed=$((crash_replayed + 1))
    fi
    written_to "$@"
}

FORMAT=vdi CREATE=static=off label=vdi
crashes recover_vdi 3 9 leave_orphans
FORMAT=vpc CREATE=force_size=on label=vpc
crashes written_to 3 9
FORMAT=vhdx CREATE=block_size=1M label=vhdx crash_replayed=0
crashes recover_vhdx 3 9
# The log is from 1 MiB on, the BAT from 2 MiB on. Between what is written to both there is a flush.
is "$(replay list log | awk '$1 == "flush" { last = "" }
    $1 ~ /^write/ && $2 >= 1048576 && $2 < 3145728 { at = int($2 / 1048576); bad += last && at != last; last = at; n[at]++ }
    END { print (n[1] > 0 && n[1] == n[2]) ? "flushed" : "not logged", bad + 0 }')" "flushed 0" "the log is stable before tables change"
num_ok "$crash_replayed > 3" "in $crash_replayed of them a log was replayed"
done_testing
