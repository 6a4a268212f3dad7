#!/bin/bash
# SPDX-License-Identifier: MIT
# A Linux guest on a disk that our server compresses: it writes, overwrites and deletes files, syncs, and is killed, in some rounds
# together with the server. Each time it boots again the file system is clean, every synced file is right, none came back. The
# image has no errors. What was deleted last is free space in it, which compact gives back.
# timeout: 900
. "$(dirname "$0")/lib.sh"
[ "$BLKSTACK_TEST_LEVEL" = long ] || skip_all "takes minutes: ./run-tests --long runs it"
any_backend
requires qemu-img qemu-system-x86_64 busybox cpio gcc apt-get dpkg-deb mke2fs e2fsck
. "$(dirname "$0")/nbd-lib.inc"
say_seed
RANDOM=$((SEED % 32768))

if ! "$(dirname "$0")/guest/make.sh" . "$BLKSTACK_BUILD/guest-kernel" >make.out 2>&1; then
    skip_all "no kernel for the guest: $(tail -n 1 make.out)"
fi

# The guest's processor; KVM where it works.
accel=(-accel tcg -cpu max)

start_guest() {     # APPEND OPTIONS...: its pid in guest
    local append=$1

    shift
    : >serial.log
    qemu-system-x86_64 -machine q35 "${accel[@]}" -m 256 -nodefaults -display none -no-reboot -serial file:serial.log \
        -kernel vmlinuz -initrd initrd -append "console=ttyS0 quiet $append" "$@" >qemu.out 2>&1 &
    guest=$!
    nbd_pids+=("$guest")
}

start_on_disk() {   # MODE
    start_guest "seed=$SEED round=$round mode=$1 batches=$batches" \
        -blockdev "driver=nbd,node-name=disk,server.type=unix,server.path=$nbd_dir/s,discard=unmap" \
        -device virtio-blk-pci,drive=disk
}

# Waits until the guest has said REGEX, or has said that something is wrong, or has ended.
wait_guest() {      # SECONDS REGEX
    local i

    for ((i = 0; i < $1 * 20; i++)); do
        if grep -qE "$2" serial.log; then
            return 0
        fi
        if grep -qE '^(WRONG|ERROR)' serial.log || ! kill -0 "$guest" 2>/dev/null; then
            break
        fi
        sleep 0.05
    done
    grep -qE "$2" serial.log
}

end_guest() {
    kill -KILL "$guest" 2>/dev/null || true
    wait "$guest" 2>/dev/null || true
}

start_server() {
    serve_on "$nbd_dir/s" "$BLKSTACK_NBD" -t -f qcow2 --discard=unmap --compress -k "$nbd_dir/s" disk.qcow2
}

# What the guest found when it began.
boots_clean() {     # LAST WORD
    if wait_guest 120 "^$1"; then
        ok "the file system is clean, the files are right: $(grep -cE '^VERIFIED' serial.log) rounds"
    else
        not_ok "the file system is clean, the files are right" "$(cat qemu.out serial.log)"
        done_testing
    fi
}

accel=(-accel kvm -cpu host)
start_guest "mode=probe round=0"
wait_guest 15 '^BOOTED' || accel=(-accel tcg -cpu max)
end_guest
diag "the guest runs with ${accel[*]}"

qimg create -q -f qcow2 -o compression_type=zstd disk.qcow2 768M
rounds=6 batches='' total=0
start_server
for ((round = 0; round < rounds; round++)); do
    label="round $round"
    start_on_disk write
    boots_clean "SYNCED $((2 + RANDOM % 6))"$'\r?$'
    sleep "0.$((RANDOM % 10))"
    if ((round % 2 == 1)); then
        end_server KILL
    fi
    end_guest
    batch=$(tr -d '\r' <serial.log | sed -n 's/^SYNCED //p' | tail -n 1)
    total=$((total + batch + 1))
    batches=$batches${batches:+,}$batch
    if ((round % 2 == 1)); then
        sound_after_kill disk.qcow2 "the server was killed"
        start_server
    fi
done

label="in the end"
start_on_disk verify
boots_clean DONE
wait "$guest" || true
stop_server
num_ok "$total > 3 * rounds" "the guest synced $total batches of changes in $rounds rounds: $batches"
img check -f qcow2 -r leaks disk.qcow2 >/dev/null || true
judge disk.qcow2 "the image"
img convert -f qcow2 -O raw disk.qcow2 disk.raw
succeeds "e2fsck finds nothing" e2fsck -fn disk.raw
img convert -c -f qcow2 -O qcow2 -o compression_type=zstd disk.qcow2 fresh.qcow2
size=$(file_blocks disk.qcow2) fresh=$(file_blocks fresh.qcow2)
num_ok "size * 100 <= fresh * 150" "the image takes $((size / 1024)) KiB, a fresh one $((fresh / 1024)) KiB"
img compact -f qcow2 disk.qcow2 >/dev/null
size=$(file_blocks disk.qcow2)
num_ok "size * 100 <= fresh * 105" "compacted $((size / 1024)) KiB"
same qcow2:disk.qcow2 disk.raw "the disk, compacted"
done_testing
