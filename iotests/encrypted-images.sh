#!/bin/bash
# SPDX-License-Identifier: MIT
# Encrypted images that the peer made: info says so, check works on their tables, everything else refuses them, says what to
# do and changes nothing.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io python3

secret=secret,id=s,data=abcabc
keyed() {       # FORMAT: how the peer opens disk.qcow2
    echo "driver=qcow2,encrypt.format=$1,encrypt.key-secret=s,file.driver=file,file.filename=disk.qcow2"
}

make() {        # FORMAT OPTIONS
    rm -f disk.qcow2
    qimg create -q -f qcow2 --object $secret -o "$2,encrypt.key-secret=s" disk.qcow2 16M >create.out 2>&1 ||
        skip_all "the peer makes no such image: $(tail -n 1 create.out)"
    "$QEMU_IO" --object $secret --image-opts "$(keyed "$1")" -c "write -P 1 0 1M" -c "write -P 2 5M 64k" >/dev/null 2>&1
}

is_refused() {  # TEXT COMMAND...
    fails "$label: $1" "encrypted \\((AES|LUKS)\\).*convert it" "${@:2}"
    is "$(sha256sum <disk.qcow2)" "$sum" "$label: $1: the image is as it was"
}

for kind in luks aes old; do
    label=$kind
    case $kind in
    luks) format=luks; make luks encrypt.format=luks,encrypt.iter-time=10 ;;
    aes) format=aes; make aes encrypt.format=aes ;;
    old) format=aes; make aes encryption=on,compat=0.10 ;;
    esac
    sum=$(sha256sum <disk.qcow2)
    like "$("$BLKSTACK_IMG" info disk.qcow2)" "encrypted: yes.*encrypt:.*format: $format" "info"
    like "$("$BLKSTACK_IMG" info --output=json disk.qcow2)" '"encrypted": true' "info, JSON"
    succeeds "check" "$BLKSTACK_IMG" check --data disk.qcow2
    is "$("$BLKSTACK_IMG" check disk.qcow2)" \
        "$("$QEMU_IMG" check --object $secret --image-opts "$(keyed "$format")" 2>/dev/null)" "check is the peer's"
    is_refused "map" "$BLKSTACK_IMG" map disk.qcow2
    is_refused "measure" "$BLKSTACK_IMG" measure -O qcow2 disk.qcow2
    is_refused "convert" "$BLKSTACK_IMG" convert -O raw disk.qcow2 out.raw
    is_refused "convert into it" "$BLKSTACK_IMG" convert -n -c -O qcow2 create.out disk.qcow2
    is_refused "resize" "$BLKSTACK_IMG" resize disk.qcow2 32M
    is_refused "read" "$BLKSTACK_IO" -r -f qcow2 -c "read 0 64k" disk.qcow2
    is_refused "write" "$BLKSTACK_IO" -f qcow2 -c "write 0 64k" disk.qcow2
    is_refused "compressed write" "$BLKSTACK_IO" --image-opts "$(filter_opts disk.qcow2)" -c "write 0 64k"
    rm -f over.qcow2
    qimg create -q -f qcow2 -u -b disk.qcow2 -F qcow2 over.qcow2 16M
    is_refused "as a backing file" "$BLKSTACK_IO" -r -f qcow2 -c "read 0 64k" over.qcow2
    like "$("$BLKSTACK_IO" -r --image-opts driver=qcow2,metadata-only=on,file.driver=file,file.filename=disk.qcow2 \
        -c "read 0 64k" 2>&1 || true)" "not supported" "what is encrypted is not read as if it were not"

    # Its counts lost, and all the same.
    lose_refcounts disk.qcow2
    succeeds "repaired" "$BLKSTACK_IMG" check -r all disk.qcow2
    succeeds "the peer finds nothing" "$QEMU_IMG" check --object $secret --image-opts "$(keyed "$format")"
    succeeds "the data is there" "$QEMU_IO" -r --object $secret --image-opts "$(keyed "$format")" -c "read -P 1 0 1M" \
        -c "read -P 2 5M 64k"
done
label=
fails "none is made" "ncryption is not supported" "$BLKSTACK_IMG" create -f qcow2 -o encryption=on new.qcow2 1M
fails "none is made" "ncryption is not supported" "$BLKSTACK_IMG" create -f qcow2 -o encrypt.format=luks new.qcow2 1M
done_testing
