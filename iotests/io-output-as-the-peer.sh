#!/bin/bash
# SPDX-License-Identifier: MIT
# The same commands give the same output, exit status and bytes as the peer's program, from -c and from standard input;
# only times and the wording of help texts differ.
. "$(dirname "$0")/lib.sh"
requires qemu-io qemu-img

normalise() {
    sed -E -e 's/; [0-9:.]+( sec)? \(.*\)$/; TIME/' -e 's/^([0-9]+,1),.*/\1,TIME/' \
        -e 's/^[^ ]*(qemu-io|blkstack-io)(:|>)/PROG\2/' -e 's/(qemu-io|blkstack-io)> /PROG> /g' \
        -e 's/^([a-z_]+) .* -- .*/\1 USAGE/' -e "s/${PROMPT:-NONE}//g"
}

run_both() {    # DESCRIPTION OPTIONS COMMAND...: on fresh images
    local description=$1 options=$2 who program status command
    local -a words arguments=()

    shift 2
    read -ra words <<<"$options"
    for command; do
        arguments+=(-c "$command")
    done
    for who in peer ours; do
        rm -rf files
        mkdir files
        truncate -s 1M files/a.raw
        "$QEMU_IMG" create -q -f qcow2 files/b.qcow2 1M
        printf abc >files/abc
        : >files/empty
        program=$BLKSTACK_IO
        if [ "$who" = peer ]; then program=$QEMU_IO; fi
        status=0
        (cd files && exec "$program" "${words[@]}" "${arguments[@]}") <"${INPUT:-/dev/null}" \
            >"$who.out" 2>"$who.err" || status=$?
        {
            normalise <"$who.out"
            echo "standard error:"
            normalise <"$who.err"
            echo "status $status"
            "$QEMU_IMG" convert -f raw -O raw files/a.raw bytes.raw && md5sum <bytes.raw
            "$QEMU_IMG" convert -f qcow2 -O raw files/b.qcow2 bytes.raw && md5sum <bytes.raw
        } >"$who.all"
    done
    is "$(cat ours.all)" "$(cat peer.all)" "$description"
}

run_both "reads" "-f raw a.raw" 'write -P 5 0 64k' 'read -P 5 0 64k' 'read -P 6 0 64k' 'read -P 6 -s 4k -l 8k 0 64k' \
    'read -s 4k 0 64k' 'read -P 5 -s 60k -l 8k 0 64k' 'read -v 512 40' 'read -C 0 64k' 'read -q 0 64k' 'read 1M 1'
run_both "arguments that are wrong" "-f raw a.raw" 'read 0' 'read 0 foo' 'read -P 300 0 10' 'read -Z 0 10' 'read 0 4G' \
    'read 0 1 2 3' 'write -u 0 64k' 'write -z -P 3 0 64k' 'write -cf 0 64k' 'flush 1' 'bogus 0 512' 'sleep foo'
run_both "writes" "-f raw a.raw" 'write -z 0 64k' 'write -zu 0 64k' 'write -f 0 4k' 'write -c 0 64k' 'write 0 2M' \
    'write -s nofile 0 64k' 'write -s empty 0 64k' 'write -s abc 0 8' 'read -v 0 8' 'write -C 0 4k'
run_both "several buffers" "-f raw a.raw" 'writev -P 7 0 4k 4k' 'readv -P 7 0 4k 4k' 'readv -v 0 16 16' 'writev 0' \
    'readv 8M 5' 'writev 0 1G 1G'
run_both "requests that are not waited for" "-f raw a.raw" 'aio_write -P 7 0 4k 4k' aio_flush 'aio_read -P 8 0 4k' \
    aio_flush 'aio_read -v 0 16' aio_flush 'aio_write -z 0 4k' aio_flush 'aio_read 2M 4k' aio_flush 'aio_write -i 0 4k'
run_both "qcow2" "b.qcow2" map 'write 0 64k' 'write -c 128k 64k' map 'alloc 0 128k' 'alloc 64k 1M' 'alloc 1M' info length
run_both "read-only" "-r -f raw a.raw" 'write 0 512' 'discard 0 512' 'read 0 512' 'truncate 5'
run_both "opening and closing" "-f raw a.raw" 'open b.qcow2' close 'open nonexist' length 'open -r b.qcow2' 'write 0 5'
run_both "a breakpoint" "--image-opts driver=blkdebug,image.driver=qcow2,image.file.driver=file,image.file.filename=b.qcow2" \
    'break pwritev A' 'aio_write 0 4k' 'wait_break A' 'read 0 4k' 'resume A' 'resume A' aio_flush 'remove_break B'

printf 'length\nbogus\n\n  read -P 1  0 512\nwrite -P 3 0 4k\nquit\nlength\n' >input
INPUT=input run_both "commands from standard input" "-f raw a.raw"
# What is not waited for may end before the next prompt or after it.
printf 'length\nread -P 1  0 512\naio_write -P 3 0 4k\naio_flush\nquit\nlength\n' >input
PROMPT='PROG> ' INPUT=input run_both "requests from standard input that are not waited for" "-f raw a.raw"
printf 'length' >input
INPUT=input run_both "input that ends without a newline" "-f raw a.raw"
done_testing
