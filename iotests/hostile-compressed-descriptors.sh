#!/bin/bash
# SPDX-License-Identifier: MIT
# Descriptors of compressed clusters past the end, in the header, over metadata, with COPIED.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
requires qemu-img qemu-io python3 prlimit
# timeout: 600

make_base
found_by_check payload
done_testing
