#!/bin/bash
# SPDX-License-Identifier: MIT
# json: names and driver options that lie: unknown and double keys, wrong types, nesting, json: inside json:. Refused by
# both tools in one message, and the image is as it was.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hostile-lib.inc"
any_backend
requires qemu-img python3 prlimit
# timeout: 300

refused() {     # TEXT REGEX NAME-OR-OPTION...
    local text=$1 regex=$2

    shift 2
    ends 1 1 "$text: info" "$BLKSTACK_IMG" info "$@"
    like "$(cat cmd.out)" "$regex" "$text: info: why"
    ends 1 1 "$text: map" "$BLKSTACK_IMG" map "$@"
    ends 1 1 "$text: io" "$BLKSTACK_IO" -c "write 0 64k" "$@"
    like "$(cat cmd.out)" "$regex" "$text: io: why"
    is "$(sha256sum <disk.qcow2)" "$sum" "$text: the image is as it was"
}

nested() {      # DEPTH OPEN CLOSE
    python3 -c 'import sys; n = int(sys.argv[1]); print("json:" + sys.argv[2] * n + sys.argv[3] * n)' "$@"
}

qimg create -q -f qcow2 disk.qcow2 1M
sum=$(sha256sum <disk.qcow2)
file="'file':{'driver':'file','filename':'disk.qcow2'}"
opts=driver=qcow2,file.driver=file,file.filename=disk.qcow2
ends 0 30 "a sound name: info" "$BLKSTACK_IMG" info "json:{'driver':'qcow2',$file}"
ends 0 30 "sound options: info" "$BLKSTACK_IMG" info --image-opts "$opts"

refused "unknown key" "lazy-refcount.*did you mean|did you mean" "json:{'driver':'qcow2','read-onli':true,$file}"
refused "unknown key below" "did you mean" "json:{'driver':'qcow2','file':{'driver':'file','filenam':'disk.qcow2'}}"
refused "unknown driver" "did you mean 'qcow2'" "json:{'driver':'qcow3',$file}"
refused "double key" "driver" "json:{'driver':'qcow2','driver':'raw',$file}"
refused "dotted and nested" "filename" "json:{'driver':'qcow2','file.filename':'other',$file}"
refused "driver is a number" "driver" "json:{'driver':1,$file}"
refused "driver is an object" "driver" "json:{'driver':{},$file}"
refused "driver is null" "driver" "json:{'driver':null,$file}"
refused "file is a number" "file" "json:{'driver':'qcow2','file':1}"
refused "file is an array" "file" "json:{'driver':'qcow2','file':[]}"
refused "file name is a number" "filename" "json:{'driver':'qcow2','file':{'driver':'file','filename':7}}"
refused "file name is empty" "name" "json:{'driver':'qcow2','file':{'driver':'file','filename':''}}"
refused "boolean is a word" "read-only" "json:{'driver':'qcow2','read-only':'perhaps',$file}"
refused "boolean is an object" "read-only" "json:{'driver':'qcow2','read-only':{},$file}"
refused "file is its own name" "self" "json:{'driver':'qcow2','node-name':'self','file':'self'}"
refused "node that is not there" "nobody" "json:{'driver':'qcow2','file':'nobody'}"
refused "json: in json:" "json:" "json:{'driver':'qcow2','file':{'filename':'json:{\"driver\":\"file\"}'}}"
refused "json: in json:, detected" "json:" "json:{'filename':'json:{\"driver\":\"file\"}'}"
refused "an array" "json: name" "json:[]"
refused "nothing" "json: name" "json:"
refused "half an object" "text ends" "json:{'driver':"
refused "text after the object" "json: name" "json:{'driver':'qcow2',$file}}"
refused "not UTF-8" "UTF-8" "json:{'driver':'"$'\xff'"'}"
refused "nested 10,000 arrays deep" "nest|deep" "$(nested 10000 "{'a':[" ']}')"
refused "nested 10,000 objects deep" "nest|deep" "$(nested 10000 "{'file':" '}')"

refused "options: unknown key" "did you mean" --image-opts "$opts,read-onli=on"
refused "options: unknown key below" "did you mean" --image-opts "$opts,file.read-onli=on"
refused "options: a value and keys below" "file" --image-opts "$opts,file=other"
refused "options: wrong type" "read-only" --image-opts "$opts,read-only=perhaps"
refused "options: no value" "driver" --image-opts "driver=,file.filename=disk.qcow2"
refused "options: nested 10,000 deep" "nest|deep|parts" --image-opts \
    "$opts,$(python3 -c 'print("file." * 10000)')x=1"
refused "options: json: in them" "json:" --image-opts "driver=qcow2,file.filename=json:{}"

# A key given twice in options is no error to the peer: the last one counts. So it does here.
for order in raw,driver=qcow2 qcow2,driver=raw; do
    opts=driver=$order,file.driver=file,file.filename=disk.qcow2
    is "$(img info --image-opts "$opts" | grep 'file format')" "$(qimg info --image-opts "$opts" | grep 'file format')" \
        "options: driver=$order: as the peer"
done
done_testing
