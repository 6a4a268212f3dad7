#!/bin/bash
# SPDX-License-Identifier: MIT
# All shell scripts of the source tree pass shellcheck without remarks.
. "$(dirname "$0")/lib.sh"
requires shellcheck
any_backend
# timeout: 500

cd "$BLKSTACK_SOURCE"
for script in quickstart run-tests .ci/run scripts/*.sh iotests/run; do
    succeeds "shellcheck $script" shellcheck "$script"
done
succeeds "shellcheck iotests/*.sh" shellcheck iotests/*.sh
done_testing
