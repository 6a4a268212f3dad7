#!/bin/bash
# SPDX-License-Identifier: MIT
# convert: targets, options and refusals are the peer's, and every target holds the source's bytes and is clean.
# timeout: 240
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peer-lib.inc"
requires qemu-img qemu-io

random_file r.raw 3276800
truncate -s 10M r.raw
text_file t.raw 4194304 1
truncate -s 1000 odd.raw
qimg create -q -f qcow2 base.qcow2 8M
peer_io base.qcow2 qcow2 "write -P 1 0 1M" "write -P 2 3M 64k" "write -z 5M 1M"
qimg create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2 10M
peer_io over.qcow2 qcow2 "write -P 3 4M 64k" "write -c -P 4 6M 64k" "write -z 0 64k"
qimg convert -f qcow2 -O raw over.qcow2 over.raw
truncate -s 10M full.raw
peer_io full.raw raw "write -P 9 0 10M"
cp -- *.raw *.qcow2 ours/
cp -- *.raw *.qcow2 peer/
cp over.raw ours/over.model
cp r.raw ours/r.model
cp t.raw ours/t.model
rm ours/over.raw peer/over.raw

# Converts with both, and judges the target (the last argument): the bytes of MODEL, both programs' alike, and clean.
converted() {   # MODEL ARGUMENTS...
    local model=$1 target=${*: -1} format

    shift
    format=$(format_of "$target")
    twin_ok convert "$@"
    same "raw:ours/$model" "$format:ours/$target" "convert $*"
    if [ "$format" = qcow2 ]; then
        judge "ours/$target" "convert $*"
        is "$(cd ours && target_kind "$target")" "$(cd peer && target_kind "$target")" "made alike: convert $*"
    fi
}

target_kind() { # FILE
    qimg info -f qcow2 "$1" | grep -v '^disk size'
    for key in allocated-clusters compressed-clusters total-clusters; do
        check_number "$1" "$key"
    done
}

over="-f qcow2 over.qcow2"
raw="-f raw r.raw"
text="-f raw t.raw"
# shellcheck disable=SC2086
{
converted over.model -O raw $over a.raw
converted over.model -O qcow2 $over a.qcow2
converted over.model -c -O qcow2 $over a.qcow2
converted over.model -c -W -m 16 -O qcow2 $over a.qcow2
converted t.model -c -O qcow2 $text a.qcow2
converted t.model -c -O qcow2 -o compression_type=zstd,cluster_size=2M $text a.qcow2
converted t.model -c -O qcow2 -o cluster_size=4k $text a.qcow2
libyal_reads qcow ours/a.qcow2 ours/t.model "compressed"
converted r.model -c -O qcow2 -o compression_type=zstd $raw a.qcow2
converted over.model -O qcow2 -o cluster_size=4k,compat=0.10 $over a.qcow2
libyal_reads qcow ours/a.qcow2 ours/over.model "version 2"
converted over.model -O qcow2 -o preallocation=metadata $over a.qcow2
converted over.model -O qcow2 -o preallocation=full $over a.qcow2
for option in "-S 0" "-S 4k" "-S 1M" "-m 1" "-m 4" "-m 16 -W" "-p -q" "-t none -T none" "-t writethrough" -C; do
    converted r.model -O qcow2 $option $raw a.qcow2
    converted r.model -O raw $option $raw a.raw
done
converted over.model -O qcow2 -B base.qcow2 -F qcow2 $over b.qcow2
converted over.model -O qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 $over b.qcow2

label="an existing target"
cp full.raw ours/n.raw
cp full.raw peer/n.raw
converted over.model -n -O raw $over n.raw
for directory in ours peer; do
    qimg convert -f raw -O qcow2 full.raw $directory/n.qcow2
done
converted over.model -n -O qcow2 $over n.qcow2
truncate -s 10M ours/zero.raw peer/zero.raw
converted over.model -n --target-is-zero -O raw $over zero.raw

label="several sources"
qimg convert -f qcow2 -O raw base.qcow2 base.raw
truncate -s 1024 odd.raw
cat base.raw odd.raw r.raw >ours/all.model
converted all.model -O qcow2 base.qcow2 odd.raw r.raw a.qcow2
converted all.model -c -O qcow2 base.qcow2 odd.raw r.raw a.qcow2
converted all.model -O raw base.qcow2 odd.raw r.raw a.raw

label="sectors that cannot be read"
bad="json:{'driver':'raw','file':{'driver':'blkdebug','image':{'driver':'file','filename':'t.raw'},"
bad+="'inject-error':[{'event':'none','iotype':'read','sector':9,'errno':5}]}}"
cp t.raw ours/salvaged.model
dd if=/dev/zero of=ours/salvaged.model bs=512 seek=9 count=1 conv=notrunc status=none
for target in a.raw a.qcow2; do
    twin convert --salvage -O "$(format_of $target)" "$bad" $target
    like "$twin_errors" "^blkstack-img: warning: error while reading offset 4608: Input/output error\$" "$target: which one"
    same raw:ours/salvaged.model "$(format_of $target):ours/$target" "$target: all others are copied"
    twin_fails "byte 0: Input/output error" convert -O "$(format_of $target)" "$bad" $target
done
twin_fails "salvag" convert -C --salvage t.raw a.raw

label=refused
sha256sum ours/over.qcow2 ours/r.raw ours/odd.raw >before.sums
twin_fails "smaller" convert -n -O raw $over odd.raw
twin_fails "lock" convert -O qcow2 $over over.qcow2
twin_fails "lock" convert -n -O qcow2 $over over.qcow2
twin_fails "lock" convert -n -O raw $raw r.raw
twin_fails "lock" convert -O raw $raw r.raw
twin_fails "no effect" convert -n -O qcow2 -o cluster_size=4k $over a.qcow2
twin_fails "target-is-zero" convert --target-is-zero -O raw $over zero.raw
twin_fails "ompression" convert -c -O raw $over x.raw
twin_fails "coroutines" convert -m 17 $raw x.raw
twin_fails "coroutines" convert -m 0 $raw x.raw
twin_fails "sparse" convert -S 100 $raw x.raw
twin_fails "backing format" convert -O qcow2 -B base.qcow2 $over x.qcow2
twin_fails "missing" convert -O qcow2 missing x.qcow2
twin_fails "nosuch" convert -O nosuch $over x.qcow2
twin_fails "nosuch" convert -f nosuch over.qcow2 x
twin_fails "nosuch" convert -O qcow2 -o nosuch=1 $over x.qcow2
twin_fails "name" convert -O qcow2 over.qcow2
twin_fails "cache" convert -t bogus $raw x.raw
}
succeeds "a refusal changes no file" sha256sum -c before.sums
is "$(find ours -name "x.*")" "" "a refusal leaves no target"

label=progress
(cd ours && img convert -p -O qcow2 r.raw p.qcow2) >progress.out
like "$(tr '\r' '\n' <progress.out | grep -v '^$' | tail -n 1)" '\(100\.00/100%\)' "ends at 100%"
like "$(tr '\r' '\n' <progress.out | head -n 1)" '\(0\.00/100%\)' "begins at 0%"
done_testing
