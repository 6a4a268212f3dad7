#!/bin/bash
# SPDX-License-Identifier: MIT
# Entries of tables that point outside, on metadata or on each other: check finds them, nothing crashes.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
requires qemu-img qemu-io python3 prlimit
# timeout: 600

make_base
found_by_check entries
done_testing
