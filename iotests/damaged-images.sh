#!/bin/bash
# SPDX-License-Identifier: MIT
# Images in all formats but qcow2 with random damage: described, read, checked, written and repaired; nothing comes of it but errors.
# For minutes of one format: build/tests/random_damage --format F --image FILE --seconds N, FILE alone in a directory.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io python3

cases=160
[ "$BLKSTACK_TEST_LEVEL" != long ] || cases=2000

# DIRECTORY FORMAT COMMAND...: the command makes the image disk.FORMAT there.
seed_of() {
    local name=$1 format=$2

    shift 2
    mkdir "$name"
    (cd "$name" && "$@")
    label=$name
    succeeds "$cases cases" "$BLKSTACK_BUILD/tests/random_damage" --format "$format" --image "$name/disk.$format" --seed "$SEED" --count "$cases"
    diag "$(tail -n 1 cmd.out)"
    [[ $(tail -n 1 cmd.out) =~ \ ([0-9]+)\ reads ]] || true
    num_ok "${BASH_REMATCH[1]:-0} > cases" "most of them can be read, in part"
}

converted() {   # FORMAT [OPTIONS]
    img convert -f raw -O "$1" ${2:+-o "$2"} ../model.raw "disk.$1"
}

child() {
    qimg convert -f raw -O vmdk ../model.raw base.vmdk
    img create -q -f vmdk -b base.vmdk -F vmdk disk.vmdk
    io_run "$BLKSTACK_IO" -f vmdk disk.vmdk -- "write -P 3 64k 8k"
}

with_log() {    # what the peer leaves when it cannot write the table
    local graph=driver=vhdx,file.driver=blkdebug,file.image.driver=file,file.image.filename=disk.vhdx
    local fault=file.inject-error.0.event=none,file.inject-error.0.iotype=write,file.inject-error.0.sector=4096,file.inject-error.0.once=on

    qimg create -q -f vhdx -o block_size=1M disk.vhdx 4M
    qio -c 'write -P 5 3M 64k' --image-opts "$graph,$fault" >/dev/null 2>&1 || true
}

SEED=1          # another one may be given to the program
text_file text.raw 60k
random_file noise.raw 20k
truncate -s 1M model.raw
dd if=text.raw of=model.raw bs=1k seek=128 conv=notrunc status=none
dd if=noise.raw of=model.raw bs=1k seek=900 conv=notrunc status=none

seed_of sparse vmdk converted vmdk zeroed_grain=on
seed_of split vmdk converted vmdk subformat=twoGbMaxExtentSparse
seed_of stream vmdk converted vmdk subformat=streamOptimized,footer=on
seed_of child vmdk child
seed_of cowd vmdk python3 "$BLKSTACK_SOURCE/iotests/craft_vmdk.py" disk.vmdk cowd ../model.raw
seed_of sesparse vmdk python3 "$BLKSTACK_SOURCE/iotests/craft_vmdk.py" disk.vmdk sesparse ../model.raw
seed_of vdi vdi converted vdi
seed_of vpc vpc converted vpc
seed_of vpc-fixed vpc converted vpc subformat=fixed
seed_of vhdx vhdx converted vhdx block_size=1M
seed_of vhdx-log vhdx with_log
seed_of qcow qcow qimg convert -f raw -O qcow ../model.raw disk.qcow
seed_of parallels parallels qimg convert -f raw -O parallels -o cluster_size=64k ../model.raw disk.parallels
seed_of dmg dmg python3 "$BLKSTACK_SOURCE/iotests/dmg_craft.py" ../model.raw disk.dmg zrb0
done_testing
