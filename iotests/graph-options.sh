#!/bin/bash
# SPDX-License-Identifier: MIT
# One graph, written as json:, as dotted keys, as nested JSON and as mixtures of them, is the same graph. Unknown keys
# are refused with the nearest known one, ill-typed values with what they should be.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io

"$QEMU_IMG" create -q -f qcow2 disk.qcow2 1M
peer_io disk.qcow2 qcow2 "write -P 1 0 64k"
cp disk.qcow2 "with,comma.qcow2"
file='{"driver": "file", "filename": "disk.qcow2"}'
qcow2="{\"driver\": \"qcow2\", \"file\": $file}"
graph="{\"driver\": \"compress\", \"file\": $qcow2}"

# Each form writes one compressed cluster through the same stack and finds the graph's parts.
form() {        # TEXT ARGUMENTS...
    local text=$1 status=0

    shift
    "$QEMU_IMG" create -q -f qcow2 disk.qcow2 1M
    timeout 20 "$BLKSTACK_IO" "$@" -c "write -P 2 4k 4k" -c "read -P 2 4k 4k" >form.out 2>&1 || status=$?
    is "$status" 0 "$text opens"
    is "$(check_number disk.qcow2 compressed-clusters)" 1 "$text: through the compress filter"
    judge disk.qcow2 "$text"
}

dotted=driver=compress,file.driver=qcow2,file.file.driver=file,file.file.filename=disk.qcow2
form "json:" "json:$graph"
form "dotted keys" --image-opts "$dotted"
form "dotted keys in another order" --image-opts \
    file.file.filename=disk.qcow2,file.file.driver=file,file.driver=qcow2,driver=compress
form "nested JSON" --image-opts "$graph"
form "json: with dotted keys" \
    'json:{"driver": "compress", "file.driver": "qcow2", "file.file.driver": "file",
        "file.file.filename": "disk.qcow2"}'
form "JSON with a part of dotted keys" --image-opts \
    '{"driver": "compress", "file": {"driver": "qcow2", "file.filename": "disk.qcow2", "file.driver": "file"}}'
form "the file's driver left out" --image-opts driver=compress,file.driver=qcow2,file.file.filename=disk.qcow2
form "options as text" "json:{\"driver\": \"compress\", \"read-only\": \"off\", \"file\": $qcow2}"
form "options with their types" "json:{\"driver\": \"compress\", \"read-only\": false, \"file\": $qcow2}"
form "white space" "json:  { \"driver\" :\"compress\" ,
    \"file\":$qcow2 }  "

label="the other tool"
for name in "json:$graph" "json:$qcow2"; do
    succeeds "info $name" img info "$name"
    succeeds "map" img map --output=json "$name"
    succeeds "compare" img compare "$name" disk.qcow2
done
like "$(img info --image-opts "$dotted")" "virtual size: 1 MiB" "info --image-opts"
succeeds "compare --image-opts" img compare --image-opts "$dotted" "driver=qcow2,file.filename=disk.qcow2"
succeeds "check --image-opts" img check --image-opts driver=qcow2,file.filename=disk.qcow2
succeeds "a comma in a name is written twice" img info --image-opts "driver=qcow2,file.filename=with,,comma.qcow2"
succeeds "and once in JSON" \
    img info 'json:{"driver": "qcow2", "file": {"driver": "file", "filename": "with,comma.qcow2"}}'
is "$(img info "json:$qcow2" | sed -n '2,3p')" \
    "$(qimg info "json:$qcow2" | sed -n '2,3p')" "info says what the peer's says"
label=

refused() {     # TEXT REGEX ARGUMENTS...
    fails "$1 is refused" "$2" timeout 20 "$BLKSTACK_IO" "${@:3}" -c "read 0 4k"
    is "$(wc -l <cmd.out)" 1 "$1: one line"
}

before=$(sha256sum disk.qcow2)
opts=driver=qcow2,file.driver=file,file.filename=disk.qcow2
refused "an unknown key" "qcow2.*'read-onyl'.*did you mean 'read-only'" --image-opts "$opts,read-onyl=on"
refused "an unknown key of a child" "file.*'filenam'.*did you mean 'filename'" --image-opts \
    driver=qcow2,file.driver=file,file.filenam=disk.qcow2
refused "a child of another name" "'fiel.driver'.*did you mean 'file'" --image-opts \
    driver=qcow2,fiel.driver=file,file.filename=disk.qcow2
refused "a child of another name in JSON" "'fiel.*did you mean 'file'" "json:{\"driver\": \"qcow2\", \"fiel\": $file}"
refused "a driver of another name" "'qcwo2'.*did you mean 'qcow2'" --image-opts driver=qcwo2,file.filename=disk.qcow2
refused "a filter of another name" "did you mean 'compress'" --image-opts "${dotted/compress/compres}"
refused "an unknown key three levels down" "file.*'lockign'.*did you mean 'locking'" \
    --image-opts "$dotted,file.file.lockign=on"
refused "a word of no list" "locking.*auto.*perhaps" --image-opts "$opts,file.locking=perhaps"
refused "a switch that is none" "read-only.*(on|bool|true)" --image-opts "$opts,read-only=perhaps"
refused "a size that is none" "cache-size.*(size|number)" --image-opts "$opts,cache-size=much"
refused "a negative size" "cache-size" --image-opts "$opts,cache-size=-1"
refused "a size beyond all sizes" "cache-size" --image-opts "$opts,cache-size=99999999999999999999"
refused "a number for a name" "filename.*string" 'json:{"driver": "qcow2", "file": {"driver": "file", "filename": 5}}'
refused "an array for a name" "filename.*string" 'json:{"driver": "qcow2", "file": {"driver": "file", "filename": []}}'
refused "an object for a name" "filename" 'json:{"driver": "qcow2", "file": {"driver": "file", "filename": {}}}'
refused "a number for a child" "file" 'json:{"driver": "qcow2", "file": 5}'
refused "an array for a child" "file" 'json:{"driver": "qcow2", "file": []}'
refused "a node that is not open" "nowhere" --image-opts driver=qcow2,file=nowhere
refused "no child" "'file' is required" --image-opts driver=qcow2
refused "a number for the driver" "driver" 'json:{"driver": 5}'
refused "a key given twice" "driver" 'json:{"driver": "qcow2", "driver": "raw", "file": '"$file"'}'
refused "a key given nested and dotted" "filename" \
    'json:{"driver": "qcow2", "file": {"filename": "disk.qcow2"}, "file.filename": "other.qcow2"}'
refused "text that is not JSON" "json|JSON" 'json:{"driver": "qcow2", '
refused "JSON that is no object" "json|JSON|object" 'json:["qcow2"]'
refused "JSON nested too deep" "deep|nest" "json:$(printf '{"file": %.0s' {1..2000})5$(printf '}%.0s' {1..2000})"
refused "an empty key" "." --image-opts "$opts,=5"
refused "a key that ends in a dot" "." --image-opts "$opts,file.=5"
is "$(sha256sum disk.qcow2)" "$before" "nothing has changed"
done_testing
