#!/bin/bash
# SPDX-License-Identifier: MIT
# vmdk: the compress filter is refused above images whose compressed grains can be written once, and above those without
# any, each with its reason; convert -c refuses before it touches a file.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vmdk-lib.inc"
any_backend
requires qemu-img

above() { echo "driver=compress,file.driver=vmdk,file.file.driver=file,file.file.filename=$1"; }

for subformat in "${subformats[@]}"; do
    img create -q -f vmdk -o "subformat=$subformat" "$subformat.vmdk" 1M
done
sums=$(sha256sum ./*.vmdk)
for subformat in "${subformats[@]}"; do
    reason="cannot rewrite compressed clusters"
    [ "$subformat" != streamOptimized ] || reason="written once, and not rewritten.*convert -c"
    fails "$subformat: for writing" "$reason" io --image-opts "$(above "$subformat.vmdk")" -c "write -P 1 0 64k"
    is "$(wc -l <cmd.out)" 1 "$subformat: one message"
    fails "$subformat: for reading" "$reason" io -r --image-opts "$(above "$subformat.vmdk")" -c "read 0 64k"
done
is "$(sha256sum ./*.vmdk)" "$sums" "no file has changed"

truncate -s 1M src.raw
for subformat in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat; do
    fails "convert -c to $subformat" "$subformat images have no compressed grains; add -o subformat=streamOptimized" \
        img convert -c -O vmdk -o "subformat=$subformat" src.raw new.vmdk
done
fails "convert -c -n" "no compressed clusters" img convert -c -n -O vmdk src.raw monolithicSparse.vmdk
is "$(find . -name 'new*')" "" "nothing was made"
is "$(sha256sum ./*.vmdk)" "$sums" "no image has changed"
done_testing
