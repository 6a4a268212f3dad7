#!/bin/bash
# SPDX-License-Identifier: MIT
# Headers, extensions, backing names and features that lie: refused by every tool with one message, image untouched.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img qemu-io python3 prlimit
# timeout: 600

make_base
refused_at_open header
done_testing
