#!/bin/bash
# SPDX-License-Identifier: MIT
# A compression type that contradicts the feature bit, or is unknown, is refused.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit
# timeout: 600

make_base
refused_at_open compression-type
done_testing
