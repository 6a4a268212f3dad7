#!/bin/bash
# SPDX-License-Identifier: MIT
# Images made to cost much in info and check: the largest tables that a header may announce, 65,536 snapshots, a virtual
# disk of exabytes, a first cluster full of extensions. Bounded processor time and memory, and a few lines of output.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit
# timeout: 300

if [ "${BLKSTACK_SANITIZE:-0}" = 1 ]; then
    skip_all "a sanitizer needs more address space than the bound"
fi

# Ends by itself within 10 seconds of processor time and 1 GiB of address space, with at most LINES lines.
cheap() {       # LINES TEXT COMMAND...
    local lines=$1 text=$2 status=0

    shift 2
    timeout 60 prlimit --as=1073741824 --cpu=10 "$@" >cmd.out 2>&1 </dev/null || status=$?
    num_ok "status < 124" "$text: ends by itself"
    num_ok "$(wc -l <cmd.out) <= lines && $(wc -c <cmd.out) > 0" "$text: few lines"
}

# The files are up to 8 TiB long, with holes: their first part is enough to tell whether somebody wrote to the image.
first_part() { head -c 8388608 disk.qcow2 | sha256sum; }

make_base
for name in $("$(dirname "$0")/craft.py" list costly); do
    cp base.qcow2 disk.qcow2
    "$(dirname "$0")/craft.py" disk.qcow2 costly "$name"
    before=$(first_part)
    cheap 70000 "$name: info" "$BLKSTACK_IMG" info disk.qcow2
    cheap 1000000 "$name: info, JSON" "$BLKSTACK_IMG" info --output=json disk.qcow2
    cheap 10100 "$name: check" "$BLKSTACK_IMG" check -f qcow2 disk.qcow2
    cheap 70000 "$name: map" "$BLKSTACK_IMG" map -f qcow2 --output=json --max-length=1G disk.qcow2
    is "$(first_part)" "$before" "$name: the image is as it was"
    rm disk.qcow2
done
done_testing
