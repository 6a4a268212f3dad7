# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# lib.sh - what iotests share; see iotests/README.md. A script begins with
#     . "$(dirname "$0")/lib.sh"
# and ends with done_testing. It runs in its own empty directory under iotests/run.
#
# Limitation: `set -e` does not see a failure inside `$(...)` that stands in an argument; compare its output instead.
set -eu -o pipefail

: "${BLKSTACK_IMG:?run me as iotests/run $0}" "${BLKSTACK_IO:?}" "${QEMU_IMG:?}" "${QEMU_IO:?}" "${TEST_DIR:?}"
cd "$TEST_DIR"

tap_count=0
tap_failed=0
tap_ended=no

tap_exit() {
    local status=$?

    if [ "$tap_ended" = no ] && [ "$status" -ne 77 ]; then
        echo "Bail out! the script ended early with status $status after $tap_count checks"
        exit $((status ? status : 1))
    fi
    exit "$status"
}
trap tap_exit EXIT
trap 'echo "# failed at ${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND" >&2' ERR
set -E

# ---- TAP ----

# What the current check is about, put before each description: set by matrix and by the script.
label=

diag() {
    printf '%s\n' "$*" | sed 's/^/# /'
}

ok() {          # DESCRIPTION
    tap_count=$((tap_count + 1))
    printf 'ok %d - %s%s\n' "$tap_count" "${label:+$label: }" "$*"
}

not_ok() {      # DESCRIPTION [DETAILS]
    tap_count=$((tap_count + 1))
    tap_failed=$((tap_failed + 1))
    printf 'not ok %d - %s%s\n' "$tap_count" "${label:+$label: }" "$1"
    if [ $# -gt 1 ]; then
        diag "$2"
    fi
}

is() {          # GOT WANTED DESCRIPTION
    if [ "$1" = "$2" ]; then ok "$3"; else not_ok "$3" "got:    $1"$'\n'"wanted: $2"; fi
}

isnt() {        # GOT UNWANTED DESCRIPTION
    if [ "$1" != "$2" ]; then ok "$3"; else not_ok "$3" "got: $1"; fi
}

like() {        # GOT EXTENDED-REGEX DESCRIPTION
    if [[ $1 =~ $2 ]]; then ok "$3"; else not_ok "$3" "got:    $1"$'\n'"wanted: /$2/"; fi
}

num_ok() {      # EXPRESSION DESCRIPTION: as in $((EXPRESSION))
    if (($1)); then ok "$2"; else not_ok "$2" "wanted: $1"; fi
}

succeeds() {    # DESCRIPTION COMMAND...
    local description=$1 status=0

    shift
    "$@" >"$TEST_DIR/cmd.out" 2>&1 || status=$?
    if [ "$status" -eq 0 ]; then
        ok "$description"
    else
        not_ok "$description" "status $status: $*"$'\n'"$(tail -n 20 "$TEST_DIR/cmd.out")"
    fi
}

# The command ends with exit status 1, not by a signal, and says what REGEX matches; the output stays in cmd.out.
fails() {       # DESCRIPTION EXTENDED-REGEX COMMAND...
    local description=$1 regex=$2 status=0

    shift 2
    "$@" >"$TEST_DIR/cmd.out" 2>&1 || status=$?
    if [ "$status" -eq 1 ] && [[ $(cat "$TEST_DIR/cmd.out") =~ $regex ]]; then
        ok "$description"
    else
        not_ok "$description" "status $status, wanted 1 and /$regex/: $*"$'\n'"$(tail -n 20 "$TEST_DIR/cmd.out")"
    fi
}

done_testing() {
    tap_ended=yes
    echo "1..$tap_count"
    exit $((tap_failed > 0))
}

skip_all() {    # REASON
    echo "1..0 # SKIP $*"
    tap_ended=yes
    exit 77
}

# Runs the Python program on standard input, which finds the modules in this directory and prints the TAP; the last command of
# a script.
python_test() {
    tap_ended=yes
    PYTHONPATH=$(dirname "$0") exec python3 -B -
}

# For scripts whose outcome cannot depend on the I/O back end: one run is enough.
any_backend() {
    if [ "$BLKSTACK_AIO" != threads ]; then
        skip_all "runs once, with BLKSTACK_AIO=threads"
    fi
}

# Mounted until the script ends; a Python part of it (which is not this process's shell) unmounts it itself.
small_file_system() {   # DIRECTORY SIZE
    mkdir "$1"
    mount -t tmpfs -o size="$2" tmpfs "$1" 2>/dev/null || skip_all "no file system can be mounted here (that needs root)"
    # shellcheck disable=SC2064
    trap "umount -l '$1'; tap_exit" EXIT
}

requires() {    # PROGRAM...: skips the script without them
    local program

    for program; do
        case $program in
        qemu-img) program=$QEMU_IMG ;;
        qemu-io) program=$QEMU_IO ;;
        esac
        command -v "$program" >/dev/null || skip_all "$program is not installed"
    done
}

# Can files here be opened with O_DIRECT?
has_direct_io() {
    truncate -s 1M probe.raw
    timeout 20 "$QEMU_IO" -f raw -n -c "read 0 4k" probe.raw >probe.out 2>&1
}

# ---- programs ----

img() { "$BLKSTACK_IMG" "$@"; }
io() { "$BLKSTACK_IO" "$@"; }
qimg() { "$QEMU_IMG" "$@"; }
qio() { "$QEMU_IO" "$@"; }

# Runs io commands, each one argument, in one process. Silent unless it fails: that is one failed check.
io_run() {      # PROGRAM-AND-OPTIONS... -- COMMAND...
    local -a program=() commands=()
    local status=0

    while [ "$1" != -- ]; do
        program+=("$1")
        shift
    done
    shift
    while [ $# -gt 0 ]; do
        commands+=(-c "$1")
        shift
    done
    timeout 100 "${program[@]}" "${commands[@]}" >io.out 2>&1 || status=$?
    if [ "$status" -ne 0 ] || grep -q 'Pattern verification failed' io.out; then
        not_ok "io commands succeed" "status $status: ${program[*]} ${commands[*]}"$'\n'"$(tail -n 20 io.out)"
    fi
}

# The graph of a compress filter above a qcow2 file, for --image-opts. Without a write buffer on one of the back ends.
[ "$BLKSTACK_AIO" != threads ] || write_buffer=,write-buffer=0
filter_opts() { # FILE
    echo "driver=compress${write_buffer:-},file.driver=qcow2,file.file.driver=file,file.file.filename=$1"
}

zio() {         # FILE COMMAND...: through the compress filter
    local file=$1

    shift
    io_run "$BLKSTACK_IO" --image-opts "$(filter_opts "$file")" -- "$@"
}

pio() {         # FILE COMMAND...: our plain qcow2, without the filter
    local file=$1

    shift
    io_run "$BLKSTACK_IO" -f qcow2 "$file" -- "$@"
}

peer_io() {     # FILE FORMAT COMMAND...: the peer
    local file=$1 format=$2

    shift 2
    io_run "$QEMU_IO" -f "$format" "$file" -- "$@"
}

# Runs COMMAND and kills it after DELAY seconds; counts in $killed if that came before its end.
run_killed() {  # DELAY COMMAND...
    local delay=$1 pid status=0

    shift
    "$@" >/dev/null 2>&1 &
    pid=$!
    sleep "$delay"
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || status=$?
    killed=$((${killed:-0} + (status == 137)))
}

# ---- judging ----

# The peer finds no errors, at most leaks, in an image whose program was killed. The kernel ends an io_uring, and with it the
# locks, some time after its process.
sound_after_kill() {    # FILE DESCRIPTION
    local status

    for _ in {1..100}; do
        status=0
        "$QEMU_IMG" check -f qcow2 "$1" >check.out 2>&1 || status=$?
        grep -q 'Failed to get .*lock' check.out || break
        sleep 0.1
    done
    if [ "$status" -ne 0 ] && [ "$status" -ne 3 ]; then
        diag "$(cat check.out)"
    fi
    num_ok "$status == 0 || $status == 3" "$2: no errors, at most leaks"
}

# Both programs find neither errors nor leaks; ours also decodes every compressed cluster.
judge() {       # FILE DESCRIPTION
    local file=$1 description=${2:-the image is clean} status=0

    {
        timeout 60 "$QEMU_IMG" check -f qcow2 "$file" || { status=$?; echo "$QEMU_IMG check: status $status"; }
        timeout 60 "$BLKSTACK_IMG" check -f qcow2 --data "$file" ||
            { status=$?; echo "$BLKSTACK_IMG check: status $status"; }
    } >check.out 2>&1
    if [ "$status" -eq 0 ]; then
        ok "$description: no errors, no leaks"
    else
        not_ok "$description: no errors, no leaks" "$(tail -n 30 check.out)"
    fi
}

# Both programs find the same bytes; a format may be given as FORMAT:FILE, qcow2 is taken for *.qcow2, else raw.
same() {        # A B DESCRIPTION
    local a=$1 b=$2 description=${3:-the same bytes} fa fb program status=0

    fa=$(format_of "$a") fb=$(format_of "$b")
    a=${a#"$fa":} b=${b#"$fb":}
    {
        for program in "$QEMU_IMG" "$BLKSTACK_IMG"; do
            timeout 100 "$program" compare -f "$fa" -F "$fb" "$a" "$b" ||
                { status=$?; echo "$program compare: status $status"; }
        done
    } >compare.out 2>&1
    if [ "$status" -eq 0 ]; then ok "$description"; else not_ok "$description" "$(tail -n 20 compare.out)"; fi
}

# A reader of others, libqcow, libvmdk or libvhdi, finds the bytes of the raw file MODEL, if it is installed.
libyal_reads() { # qcow | vmdk | vpc IMAGE MODEL TEXT
    local status=0

    python3 "$BLKSTACK_SOURCE/iotests/libyal_compare.py" "$1" "$2" "$3" >libyal.out 2>&1 || status=$?
    case $status in
    0) ok "$4: the reader of others finds the same" ;;
    77) diag "$4: no reader of others for $1 is installed" ;;
    *) not_ok "$4: the reader of others finds the same" "$(cat libyal.out)" ;;
    esac
}

format_of() {   # [FORMAT:]FILE
    case $1 in
    raw:* | qcow2:*) echo "${1%%:*}" ;;
    *.qcow2) echo qcow2 ;;
    *) echo raw ;;
    esac
}

# A number from the peer's check: compressed-clusters, allocated-clusters, image-end-offset, ...
check_number() { # FILE KEY
    local value

    value=$("$QEMU_IMG" check -f qcow2 --output=json "$1" | sed -n "s/^ *\"$2\": \([0-9]*\),*\$/\1/p")
    echo "${value:-0}"
}

# "yes" if the cluster at OFFSET of disk.qcow2 is compressed: the peer's map gives such data no place in the file.
compressed_at() { # OFFSET
    "$QEMU_IMG" map -f qcow2 --output=json --start-offset="$1" --max-length="$CLUSTER" disk.qcow2 |
        grep -q '"depth": 0.*"data": true}' && echo yes || echo no
}

# The refcount table of a qcow2 image names no block any more.
lose_refcounts() { # FILE
    python3 -c '
import struct, sys
with open(sys.argv[1], "r+b") as file:
    file.seek(48)
    file.seek(struct.unpack(">Q", file.read(8))[0])
    file.write(bytes(8))' "$1"
}

file_bytes() { stat -c %s "$1"; }
file_blocks() { echo $(($(stat -c %b "$1") * 512)); }       # bytes of disk that FILE takes

# ---- one image and its model ----

# disk.qcow2 and model.raw, both empty. $COMPRESSION, $CLUSTER and $VERSION choose the format.
COMPRESSION=zlib CLUSTER=65536 VERSION=v3
new_image() {   # SIZE [QEMU-IMG-OPTIONS...]
    local size=$1 type=,compression_type=$COMPRESSION

    shift
    if [ "$VERSION" = v2 ]; then
        type=
    fi
    rm -f disk.qcow2 model.raw
    "$QEMU_IMG" create -q -f qcow2 -o "cluster_size=$CLUSTER,compat=$VERSION$type" "$@" disk.qcow2 "$size"
    truncate -s "$(virtual_size disk.qcow2)" model.raw
}

virtual_size() { # FILE
    "$QEMU_IMG" info -f qcow2 --output=json "$1" | sed -n 's/^    "virtual-size": \([0-9]*\),*$/\1/p'
}

# Makes model.raw from what disk.qcow2 holds now, by the peer.
model_from_image() {
    "$QEMU_IMG" convert -f qcow2 -O raw disk.qcow2 model.raw
}

# The same commands on the model, where discarding is writing zeroes.
model_io() {    # COMMAND...
    local -a commands=()
    local command

    for command; do
        command=${command/#discard /write -z }
        command=${command/#write -c /write }
        command=${command/#write -z -u /write -z }
        commands+=("$command")
    done
    peer_io model.raw raw "${commands[@]}"
}

both() {        # COMMAND...: through the filter, and on the model
    zio disk.qcow2 "$@"
    model_io "$@"
}

both_plain() {  # COMMAND...: our qcow2 without the filter, and on the model
    pio disk.qcow2 "$@"
    model_io "$@"
}

both_peer() {   # COMMAND...: the peer's qcow2, and on the model
    peer_io disk.qcow2 qcow2 "$@"
    model_io "$@"
}

# The image has the model's bytes and is clean.
agrees() {      # TEXT
    same disk.qcow2 model.raw "$1: every byte as the model"
    judge disk.qcow2 "$1"
}

# Runs FUNCTION for each compression type and cluster size, with $label set.
matrix() {      # FUNCTION
    for COMPRESSION in zlib zstd; do
        for CLUSTER in 65536 2097152; do
            label="$COMPRESSION $((CLUSTER / 1024))k"
            "$1"
        done
    done
    label=
}

# ---- data ----

# Seeds are printed, so that a failure can be run again: SEED=n iotests/run ...
SEED=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
seed_said=no
say_seed() {
    if [ "$seed_said" = no ]; then
        seed_said=yes
        diag "SEED=$SEED"
    fi
}

# BYTES (also 64k, 12M) incompressible bytes; NUMBER tells files of one script apart.
random_file() { # FILE BYTES [NUMBER]
    say_seed
    perl -e 'my ($file, $bytes, $seed) = @ARGV; srand($seed); open(my $out, ">:raw", $file) or die;
        for (my $left = $bytes; $left > 0; $left -= 65536) {
            my $data = pack("L*", map { int(rand(4294967296)) } 1 .. 16384);
            print $out substr($data, 0, $left < 65536 ? $left : 65536);
        }
        close($out) or die' "$1" "$(numfmt --from=iec "${2^^}")" "$((SEED + ${3:-0}))"
}

# BYTES of words: compressible, but no repeated byte.
text_file() {   # FILE BYTES [NUMBER]
    say_seed
    perl -e 'my ($file, $bytes, $seed) = @ARGV; srand($seed); open(my $out, ">:raw", $file) or die;
        my @words = map { my $n = $_; join("", map { chr(97 + ($n * 7 + $_ * $_) % 26) } 0 .. $n % 9) } 1 .. 200;
        my $text = "";
        while (length($text) < $bytes) { $text .= $words[int(rand(200))] . " "; }
        print $out substr($text, 0, $bytes); close($out) or die' "$1" "$(numfmt --from=iec "${2^^}")" "$((SEED + ${3:-0}))"
}
