#!/bin/bash
# SPDX-License-Identifier: MIT
# Rules of the fault filter, from a configuration file and from options, act as the peer's blkdebug does: the same
# requests fail with the same errors. Rules that make no sense are refused.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

# What came of each command, without times; the peer's name is taken for ours. Only ours tells of a failed flush at the end.
outcomes() {    # PROGRAM OPTIONS COMMAND...
    local program=$1 opts=$2 command
    local -a commands=()

    shift 2
    for command; do
        commands+=(-c "$command")
    done
    timeout 20 "$program" -t writeback --image-opts "$opts" "${commands[@]}" 2>&1 |
        grep -v -e 'ops;' -e 'what was written last could not be stored' | sed 's/^[a-z]*-io: //' || true
}

prepare() {
    rm -f disk.qcow2 disk.raw
    truncate -s 1M disk.raw
    "$QEMU_IMG" create -q -f qcow2 disk.qcow2 4M
    peer_io disk.qcow2 qcow2 "write -P 1 0 128k" "write -c -P 2 128k 64k"
}

as_the_peer() { # TEXT raw|qcow2 RULES REGEX COMMAND...: the same, and the outcome matches
    local text=$1 opts="driver=$2,file.driver=blkdebug,$3,file.image.driver=file,file.image.filename=disk.$2" regex=$4
    local wanted

    shift 4
    prepare
    wanted=$(outcomes "$QEMU_IO" "$opts" "$@")
    prepare
    is "$(outcomes "$BLKSTACK_IO" "$opts" "$@")" "$wanted" "$text: as the peer"
    like "$(echo "$wanted" | tr '\n' '|')" "$regex" "$text: what is wanted"
}

rules() {       # KEY=VALUE...: the options of rule 0
    local rule out=

    for rule; do
        out+=",file.inject-error.0.$rule"
    done
    echo "${out#,}"
}

config() {      # text of the configuration file on standard input
    cat >rules.conf
    echo file.config=rules.conf
}

EIO="Input/output error" ENOSPC="No space left on device"
read_0="read 0 4k" read_64="read 64k 4k" compressed="read 128k 4k"

# Which event, which error, how often.
as_the_peer "an event arms a rule" qcow2 "$(rules event=read_aio errno=28)" \
    "^read failed: $ENOSPC\|read failed: $ENOSPC" "$read_0" "$read_0"
as_the_peer "the default is EIO" qcow2 "$(rules event=read_aio)" "^read failed: $EIO" "$read_0"
as_the_peer "an event that does not happen" qcow2 "$(rules event=read_compressed)" "^read 4096.*read 4096" \
    "$read_0" "$read_64"
as_the_peer "an event of compressed reads" qcow2 "$(rules event=read_compressed errno=12)" \
    "^read 4096.*read failed: Cannot allocate memory" "$read_0" "$compressed"
as_the_peer "once" qcow2 "$(rules event=read_aio once=on)" "^read failed: $EIO\|read 4096" "$read_0" "$read_0" "$read_0"
as_the_peer "immediately" qcow2 "$(rules event=read_aio immediately=on once=on)" "^read failed: $EIO\|read 4096" \
    "$read_0" "$read_0"
as_the_peer "no event" raw "$(rules event=none iotype=write)" "^read 4096.*write failed: $EIO\|write failed: $EIO" \
    "$read_0" "write 0 4k" "write 8k 4k"

# Which requests.
as_the_peer "a sector" raw "$(rules event=none sector=8 iotype=read)" \
    "^read 4096/4096 bytes at offset 0\|read failed: $EIO\|read 4096/4096 bytes at offset 8192\|read failed" \
    "read 0 4k" "read 4k 4k" "read 8k 4k" "read 0 8k"
as_the_peer "a sector, by its last byte" raw "$(rules event=none sector=9 iotype=read)" \
    "^read failed: $EIO\|read 4096" "read 1k 4k" "read 8k 4k"
for type in read write write-zeroes discard flush; do
    as_the_peer "iotype $type" raw \
        "$(rules event=none "iotype=$type" once=on errno=28),file.discard=unmap,discard=unmap" "" \
        "read 0 4k" "write 0 4k" "write -z -n 64k 4k" "discard 128k 64k" "read 0 4k" "write 0 4k"
done

# The configuration file: states.
file=$(config <<'EOF'
# the second read fails, and only that
[set-state]
event = "read_aio"
state = "1"
new_state = "2"

[inject-error]
event = "read_aio"
state = "2"
errno = "28"
once = "on"
EOF
)
as_the_peer "a state" qcow2 "$file" "^read 4096[^|]*\|read failed: $ENOSPC\|read 4096" "$read_0" "$read_0" "$read_64"
file=$(config <<'EOF'
[inject-error]
event = "read_aio"
state = "3"
errno = "5"

[set-state]
event = "read_aio"
state = "1"
new_state = "2"

[set-state]
event = "read_aio"
state = "2"
new_state = "3"

[set-state]
event = "read_aio"
state = "3"
new_state = "4"
EOF
)
as_the_peer "states one after the other" qcow2 "$file" "" "$read_0" "$read_64" "$read_0" "$read_64" "$read_0"
as_the_peer "a state as option" qcow2 \
    "$(rules event=read_aio state=2),$(rules event=read_aio new_state=2 state=1 | sed 's/inject-error/set-state/g')" \
    "^read 4096[^|]*\|read failed: $EIO" "$read_0" "$read_0" "$read_64"
file=$(config <<'EOF'
[inject-error]
event = "read_aio"
errno = "5"
once = "on"
EOF
)
as_the_peer "a file and options together" qcow2 "$file,$(rules event=read_compressed errno=28 once=on)" \
    "^read failed: $EIO\|read 4096[^|]*\|read failed: $ENOSPC\|read 4096" \
    "$read_0" "$read_0" "$compressed" "$compressed"
prepare
named=$(timeout 20 "$BLKSTACK_IO" -c "$read_0" -c "$read_0" blkdebug:rules.conf:disk.qcow2 2>&1 |
    grep -v 'ops;' || true)
is "$named" "$(printf 'read failed: %s\nread 4096/4096 bytes at offset 0' "$EIO")" "the name blkdebug:CONFIG:IMAGE"

# What is refused.
refused() {     # TEXT REGEX RULES
    fails "$1 is refused" "$2" io --image-opts \
        "driver=qcow2,file.driver=fault,$3,file.image.driver=file,file.image.filename=disk.qcow2" -c "$read_0"
}
refused "an unknown event" "read_iao" "$(rules event=read_iao)"
refused "an errno of no meaning" "errno" "$(rules event=read_aio errno=0)"
refused "an unknown type" "iotype" "$(rules event=read_aio iotype=wirte)"
refused "an unknown key" "did you mean 'once'" "$(rules event=read_aio onec=on)"
refused "no event" "event" "$(rules errno=5)"
refused "no file" "nowhere" file.config=nowhere.conf
echo "[nonsense]" >bad.conf
refused "an unknown group" "bad.conf:1" file.config=bad.conf

# A write that is not flushed by anybody else: the program flushes when it ends, and says what came of it.
prepare
fails "the last flush fails" "what was written last could not be stored: $ENOSPC" "$BLKSTACK_IO" --image-opts \
    "driver=raw,file.driver=blkdebug,$(rules event=none iotype=flush errno=28),file.image.driver=file,file.image.filename=disk.raw" \
    -c "write 0 4k"
done_testing
