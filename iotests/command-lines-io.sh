#!/bin/bash
# SPDX-License-Identifier: MIT
# What users type, and mistype, at blkstack-io, and in its commands: exit status, streams and text are those of the peer.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io
any_backend

python_test <<'END'
import os
import subprocess

from command_lines import compare

TABLE = r"""
# ---- the program itself ----
? --help
? -h
? --version
? -V
? --vers
!usage --bogus
!usage -x
!usage -c
!usage --cmd
!usage raw.raw a.qcow2
!usage -f
? -h raw.raw
!usage -c 'read 0 4k' raw.raw extra
= missing
''
.
= -c 'read 0 4k' missing
= -c 'read 0 4k'
-c quit
-f raw raw.raw
-f raw -c 'read 0 4k' raw.raw
-fraw -c 'read 0 4k' raw.raw
--format=raw -c 'read 0 4k' raw.raw
!usage --fo raw -c 'read 0 4k' raw.raw
-f raw --cmd='read 0 4k' raw.raw
-f raw --cmd 'read 0 4k' raw.raw
= -f bogus -c 'read 0 4k' raw.raw
= -f qcow2 -c 'read 0 4k' raw.raw
? -c 'read 0 4k' raw.raw
-c 'read 0 4k' a.qcow2
-f raw -- raw.raw
-c 'read 0 4k' -- a.qcow2
a.qcow2 -c 'read 0 4k'
-r -f raw -c 'read 0 4k' raw.raw
= -r -f raw -c 'write 0 4k' raw.raw
= --read-only -f raw -c 'write 0 4k' raw.raw
-s -f raw -c 'write -P 9 0 4k' -c 'read -P 9 0 4k' raw.raw
--snapshot -f qcow2 -c 'write -P 9 0 4k' a.qcow2
= -s -r -f raw -c 'write 0 4k' raw.raw
-n -f raw -c 'read 0 4k' raw.raw
--nocache -f raw -c 'read 0 4k' raw.raw
-C -c 'read 0 64k' top.qcow2
--copy-on-read -c 'read 0 64k' top.qcow2
-C -r -c 'read 0 64k' top.qcow2
-m -f raw -c 'read 0 4k' raw.raw
--misalign -f raw -c 'read 0 4k' raw.raw
!native -k -f raw -c 'read 0 4k' raw.raw
-i threads -f raw -c 'read 0 4k' raw.raw
--aio=threads -f raw -c 'read 0 4k' raw.raw
= -i bogus -f raw -c 'read 0 4k' raw.raw
= -i '' -f raw -c 'read 0 4k' raw.raw
-t none -f raw -c 'read 0 4k' raw.raw
-t off -f raw -c 'read 0 4k' raw.raw
-t writeback -f raw -c 'write 0 4k' raw.raw
-t writethrough -f raw -c 'write 0 4k' raw.raw
-t directsync -f raw -c 'write 0 4k' raw.raw
-t unsafe -f raw -c 'write 0 4k' raw.raw
--cache=unsafe -f raw -c 'write 0 4k' raw.raw
= -t bogus -f raw -c 'read 0 4k' raw.raw
-d unmap -f raw -c 'discard 0 64k' raw.raw
-d ignore -f raw -c 'discard 0 64k' raw.raw
-d on -f raw -c 'discard 0 64k' raw.raw
-d off -f raw -c 'discard 0 64k' raw.raw
--discard=unmap -f raw -c 'discard 0 64k' raw.raw
= -d bogus -f raw -c 'read 0 4k' raw.raw
= -U -f raw -c 'read 0 4k' raw.raw
-U -r -f raw -c 'read 0 4k' raw.raw
--force-share -r -f raw -c 'read 0 4k' raw.raw
-T bogus -f raw -c 'read 0 4k' raw.raw
-T '' -f raw -c 'read 0 4k' raw.raw
--trace enable=bogus -f raw -c 'read 0 4k' raw.raw
? -T help
!usage -T
--image-opts -c 'read 0 4k' driver=raw,file.filename=raw.raw
= --image-opts -f raw -c 'read 0 4k' driver=raw,file.filename=raw.raw
= --image-opts -c 'read 0 4k' driver=bogus,file.filename=raw.raw
--image-opts -c 'read 0 4k' driver=raw,bogus=1,file.filename=raw.raw
--image-opts -c 'read 0 4k' raw.raw
--image-opts -U -r -c 'read 0 4k' driver=raw,file.filename=raw.raw
? --object help
? --object secret,help
--object secret,id=s,data=x -f raw -c 'read 0 4k' raw.raw
--object bogus,id=s -f raw -c 'read 0 4k' raw.raw
--object secret,id=s -f raw -c 'read 0 4k' raw.raw
json:{
-c 'read 0 4k' 'json:{"driver":"raw","file":{"driver":"file","filename":"raw.raw"}}'
-c 'read 0 4k' 'json:{"driver":"null-co","size":65536}'
-f null-co -c 'read 0 4k' null-co://
-c 'read 0 4k' nbd:unix:/nonexistent
# ---- standard input ----
sh @ -f raw raw.raw </dev/null
sh printf 'read 0 4k\n' | @ -f raw raw.raw
sh printf 'read 0 4k' | @ -f raw raw.raw
= sh printf 'bogus\n' | @ -f raw raw.raw
sh printf 'read 0 9M\nquit\n' | @ -f raw raw.raw
sh printf 'q\nread 0 4k\n' | @ -f raw raw.raw
sh printf 'length\n\n\nlength\n' | @ -f raw raw.raw
= sh printf 'length\n' | @
= sh printf 'open -o driver=raw raw.raw\nlength\nclose\nlength\n' | @
sh @ -f raw -c length raw.raw <&-
sh @ -f raw -c length raw.raw >&-; cmp raw.raw same.raw
sh @ -f raw -c length raw.raw >&-
sh { @ -f raw -c 'read -v 0 64k' raw.raw; echo $? >status; } | true; cat status
sh { @ --help; echo $? >status; } | true; cat status
sh @ -f raw -c 'read 0 9M' raw.raw 2>/dev/full
# ---- commands: one that fails makes the status ----
? -c help
? -f raw -c help raw.raw
-f raw -c 'help bogus' raw.raw
? -f raw -c 'help read' raw.raw
= -f raw -c bogus raw.raw
-f raw -c '' raw.raw
-f raw -c ' ' raw.raw
= -f raw -c bogus -c 'read 0 4k' raw.raw
= -f raw -c 'read 0 4k' -c bogus raw.raw
-f raw -c quit -c bogus raw.raw
-f raw -c q raw.raw
= -f raw -c exit raw.raw
-f raw -c length raw.raw
= -f raw -c 'length 1' raw.raw
= -f raw -c truncate raw.raw
-f raw -c 'truncate 2M' -c length raw.raw
-f raw -c 'truncate x' raw.raw
? -f raw -c 'truncate -1' raw.raw
-f raw -c 'truncate -m full 2M' raw.raw
= -f raw -c 'truncate -m bogus 2M' raw.raw
-f raw -c info raw.raw
-c info a.qcow2
-f raw -c flush raw.raw
= -f raw -c 'flush 1' raw.raw
-f raw -c close raw.raw
= -f raw -c close -c length raw.raw
= -f raw -c 'open same.raw' raw.raw
? -f raw -c close -c 'open -f raw same.raw' raw.raw
? -c 'open same.raw' -c length
= -c 'open missing'
= -c open
-c 'open -o driver=raw same.raw' -c length
= -c 'open -o driver=bogus same.raw'
? -c 'open -x same.raw'
= -c 'open -r -o driver=raw same.raw' -c 'write 0 4k'
-c 'open -n -o driver=raw same.raw' -c 'read 0 4k'
-c 'open -U -r -o driver=raw same.raw' -c 'read 0 4k'
= -c 'open -d bogus same.raw'
-c 'open -C -o driver=qcow2 top.qcow2' -c 'read 0 4k'
-f raw -c reopen raw.raw
= -f raw -c 'reopen -r' -c 'write 0 4k' raw.raw
-f raw -c 'reopen -r' -c 'reopen -w' -c 'write 0 4k' raw.raw
-f raw -c 'reopen -c none' -c 'read 0 4k' raw.raw
= -f raw -c 'reopen -c bogus' raw.raw
-f raw -c 'reopen -o bogus=1' raw.raw
? -f raw -c 'reopen -x' raw.raw
= -f raw -c read raw.raw
= -f raw -c 'read 0' raw.raw
? -f raw -c 'read 0 4k 4k' raw.raw
-f raw -c 'read x 4k' raw.raw
-f raw -c 'read 0 x' raw.raw
? -f raw -c 'read -1 4k' raw.raw
? -f raw -c 'read 0 -1' raw.raw
-f raw -c 'read 0 0' raw.raw
-f raw -c 'read 1M 4k' raw.raw
-f raw -c 'read 1020k 8k' raw.raw
-f raw -c 'read 0 1.5k' raw.raw
-f raw -c 'read 0x1000 0x1000' raw.raw
-f raw -c 'read 1 1' raw.raw
-f raw -c 'read 0 1e3' raw.raw
-f raw -c 'read 0 4K' raw.raw
-f raw -c 'read 0 8E' raw.raw
-f raw -c 'read 0 3G' raw.raw
-f raw -c 'read -C 0 4k' raw.raw
-f raw -c 'read -q 0 4k' raw.raw
-f raw -c 'read -P 1 64k 64k' raw.raw
-f raw -c 'read -P 2 64k 64k' raw.raw
-f raw -c 'read -P x 64k 64k' raw.raw
-f raw -c 'read -P 256 64k 64k' raw.raw
-f raw -c 'read -P 0x01 64k 64k' raw.raw
-f raw -c 'read -s 4k -P 1 64k 64k' raw.raw
-f raw -c 'read -l 4k -P 1 64k 64k' raw.raw
? -f raw -c 'read -l 4k 64k 64k' raw.raw
-f raw -c 'read -b 0 4k' raw.raw
!vmstate -f raw -c 'read -b 1 4k' raw.raw
? -f raw -c 'read -x 0 4k' raw.raw
-f raw -c 'read -v 64k 32' raw.raw
-f raw -c 'r 0 4k' raw.raw
-f raw -c 'readv 0 4k 4k' raw.raw
= -f raw -c 'readv 0' raw.raw
-f raw -c 'readv -P 9 0 4k' raw.raw
-f raw -c 'write 0 4k' raw.raw
-f raw -c 'write -P 7 0 4k' -c 'read -P 7 0 4k' raw.raw
-f raw -c 'write -z 0 64k' raw.raw
-f raw -c 'write -zu 0 64k' raw.raw
-f raw -c 'write -u 0 64k' raw.raw
-f raw -c 'write -zn 0 64k' raw.raw
-f raw -c 'write -f 0 4k' raw.raw
-f raw -c 'write -c 0 64k' raw.raw
-c 'write -c 0 64k' a.qcow2
-c 'write -c 0 4k' a.qcow2
-f raw -c 'write -b 0 4k' raw.raw
-f raw -c 'write -bz 0 4k' raw.raw
= -f raw -c 'write -s missing 0 4k' raw.raw
-f raw -c 'write -s pattern 0 4k' -c 'read -v 0 16' raw.raw
-f raw -c 'write -s pattern -P 1 0 4k' raw.raw
-f raw -c 'write -s pattern -z 0 4k' raw.raw
-f raw -c 'write 1M 4k' raw.raw
-f raw -c 'w 0 4k' raw.raw
-f raw -c 'writev 0 4k 4k' raw.raw
-f raw -c 'writev -f 0 4k' raw.raw
-f raw -c 'aio_read 0 4k' -c aio_flush raw.raw
-f raw -c 'aio_read 0 9M' -c aio_flush raw.raw
-f raw -c 'aio_write -P 5 0 4k' -c aio_flush -c 'read -P 5 0 4k' raw.raw
-f raw -c 'aio_write -z 0 4k 4k' raw.raw
-f raw -c 'aio_write -u 0 4k' raw.raw
-f raw -c 'aio_write x 4k' raw.raw
= -f raw -c aio_read raw.raw
-f raw -c 'discard 0 64k' raw.raw
= -f raw -c 'discard 0' raw.raw
-f raw -c 'discard x 4k' raw.raw
-f raw -c 'discard 0 9M' raw.raw
-f raw -c 'discard -C 0 4k' raw.raw
? -f raw -c 'discard -x 0 4k' raw.raw
-f raw -c 'alloc 0 4k' raw.raw
-c 'alloc 0 1M' a.qcow2
-c 'alloc 0' a.qcow2
= -c alloc a.qcow2
-c 'alloc x' a.qcow2
-c map a.qcow2
= -c 'map 1' a.qcow2
-c 'sleep 1' a.qcow2
= -c sleep a.qcow2
-c 'sleep x' a.qcow2
!fault -c 'break pwritev A' a.qcow2
-c 'wait_break A' a.qcow2
-c 'resume A' a.qcow2
-c 'remove_break A' a.qcow2
= -c break a.qcow2
-c 'sigraise x' a.qcow2
= -c sigraise a.qcow2
= -c 'abort 1' a.qcow2
"""

DIFFERENCES = {
    "usage": ("errors go to standard error alone, in two lines", 1, r"Try .PROGRAM --help|ambiguous"),
    "native": ("an engine that fits the cache is chosen", 0, r"read 4096/4096"),
    "fault": ("it is said what would be needed", 1, r"no fault filter"),
    "vmstate": ("the format is asked before the offset", 1, r"not supported"),
}


def set_up(directory):
    def tool(*words):
        subprocess.run(words, cwd=directory, check=True, timeout=60, stdout=subprocess.DEVNULL)

    img, io = os.environ["QEMU_IMG"], os.environ["QEMU_IO"]
    tool(img, "create", "-f", "raw", "raw.raw", "1M")
    tool(io, "-f", "raw", "-c", "write -P 1 64k 64k", "raw.raw")
    tool("cp", "raw.raw", "same.raw")
    tool(img, "create", "-f", "qcow2", "a.qcow2", "1M")
    tool(io, "-c", "write -P 1 64k 64k", "-c", "write -z 256k 64k", "a.qcow2")
    tool(img, "create", "-f", "qcow2", "base.qcow2", "1M")
    tool(img, "create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    with open(os.path.join(directory, "pattern"), "w", encoding="ascii") as pattern:
        pattern.write("abc")


compare("blkstack-io", "qemu-io", TABLE, DIFFERENCES, set_up)
END
