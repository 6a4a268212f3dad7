#!/bin/bash
# SPDX-License-Identifier: MIT
# L1, refcount and snapshot tables of absurd size or place are refused at open.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
requires qemu-img qemu-io python3 prlimit
# timeout: 600

make_base
refused_at_open tables
done_testing
