#!/bin/bash
# SPDX-License-Identifier: MIT
# Every relative link in the project's Markdown pages leads to a file.
. "$(dirname "$0")/lib.sh"
any_backend

cd "$BLKSTACK_SOURCE"
for page in *.md docs/*.md iotests/*.md; do
    missing=
    while read -r target; do
        if [ ! -e "$(dirname "$page")/$target" ]; then
            missing+=" $target"
        fi
    done < <(grep -oE '\]\([^)#:]+\)' "$page" | sed 's/^](//; s/)$//')
    is "$missing" "" "$page: its links"
done
done_testing
