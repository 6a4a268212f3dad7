#!/bin/bash
# SPDX-License-Identifier: MIT
# What users type, and mistype, at blkstack-nbd and blkstack-daemon: exit status, streams and text are those of the peer.
# timeout: 300
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io qemu-nbd qemu-storage-daemon
any_backend

python_test <<'END'
import os
import subprocess

from command_lines import compare_all

# Most name an image that is not there, so that nothing is served.
NBD = r"""
? --help
? -h
? --version
? -V
? --vers
? --he
?
--bogus
-x
-Z missing
--port
missing extra
missing
-f raw missing
-fraw missing
--format=raw missing
--form raw missing
-f bogus raw.raw
-f bogus missing
-r -f raw missing
--read-only -f raw missing
-s -f raw missing
-l s1 -f raw missing
-l snapshot.bogus=1 -f raw missing
-n -f raw missing
= --nocache --cache=none missing
= --cache=none --nocache missing
--cache none -f raw missing
--cache bogus missing
--cache=
--aio threads -f raw missing
= --aio bogus missing
--discard unmap -f raw missing
--discard bogus missing
--detect-zeroes on -f raw missing
= --detect-zeroes unmap -f raw missing
--detect-zeroes bogus missing
--detect-zeroes=unmap --discard=unmap -f raw missing
-b 127.0.0.1 -p 0 -f raw missing
-p x -f raw raw.raw
-p 65536 -f raw raw.raw
-p -1 -f raw raw.raw
-p 0 -f raw missing
-b 203.0.113.1 -p 0 -f raw raw.raw
= -k s -f raw raw.raw
-k /nonexistent/s -f raw raw.raw
= --socket s -f raw raw.raw
= -e x -f raw missing
= -e -1 -f raw missing
-e 0 -f raw missing
= -e 99999999999 -f raw missing
--shared=2 -f raw missing
-t -f raw missing
--persistent -f raw missing
-v -f raw missing
--verbose -f raw missing
= -o x -f raw missing
-o -1 -f raw missing
-o 1k -f raw missing
-o 0x10 -f raw missing
-o 2M -f raw raw.raw
= -o 8E -f raw raw.raw
-P 1 -f raw missing
-P 0 -f raw missing
-P 9 -f raw missing
-P x -f raw missing
-P 1 -f raw raw.raw
-P 1 -o 1 -f raw missing
-x name -D text -f raw missing
--export-name name -f raw missing
-B bits -f qcow2 missing
-B bits -f raw raw.raw
-A -f raw missing
--allocation-depth -f raw missing
--fork -f raw missing
--fork -f bogus raw.raw
--fork -k /nonexistent/s -f raw raw.raw
--pid-file /nonexistent/p -k /nonexistent/s -f raw raw.raw
--image-opts driver=raw,file.filename=missing
= --image-opts -f raw driver=raw,file.filename=missing
--image-opts driver=bogus,file.filename=raw.raw
--image-opts driver=raw,bogus=1,file.filename=raw.raw
? --object help
? --object secret,help
--object secret,id=s,data=x -f raw missing
--object bogus,id=s -f raw missing
--object secret,id=s -f raw missing
--tls-creds no -f raw raw.raw
= --tls-authz no -f raw missing
= --tls-hostname no -f raw missing
--object secret,id=s,data=x --tls-creds s -f raw raw.raw
-L -k /nonexistent/s
--list -k /nonexistent/s
= -L raw.raw
-L -b 127.0.0.1 -p 1
-L -r
= -L -x name
-T bogus -f raw missing
-T '' -f raw missing
--trace enable=bogus -f raw missing
? -T help
-- missing
-f raw -- missing
missing -f raw
sh { @ --help; echo $? >status; } | true; cat status
sh @ missing 2>/dev/full
sh @ missing >&-
sh LISTEN_PID=$$ LISTEN_FDS=1 exec @ -k /tmp/s -f raw missing
"""

DAEMON = r"""
? --help
? -h
? --version
? -V
? --vers
= --bogus
-x
-Z
= extra
--blockdev
--pidfile
--monitor
? -T help
? --trace help
-T bogus --bogus
sh @ --chardev stdio,id=c --monitor c <quit
sh @ --chardev stdio,id=c --monitor chardev=c,mode=control <quit
sh @ --chardev stdio,id=c --monitor chardev=c,id=m <quit
sh @ --chardev stdio,id=c --mon c <quit
sh @ --chardev=stdio,id=c --monitor=c <quit
? sh @ --chardev stdio,id=c --monitor c,pretty=on <quit
sh @ -T '' --chardev stdio,id=c --monitor c <quit
sh @ -T bogus --chardev stdio,id=c --monitor c <quit
sh @ --trace enable=bogus --chardev stdio,id=c --monitor c <quit
sh @ --pidfile pid --chardev stdio,id=c --monitor c <quit
--pidfile /nonexistent/pid
--pidfile .
sh @ --pidfile one --pidfile two --chardev stdio,id=c --monitor c <quit
sh @ --chardev stdio,id=c --monitor c <quit >/dev/full
sh { @ --help; echo $? >status; } | true; cat status
sh @ --bogus 2>&-
= --daemonize --bogus
--daemonize --chardev stdio,id=c --monitor c
= --daemonize --blockdev file,node-name=n,filename=missing
= --daemonize --pidfile /nonexistent/pid
!help --blockdev help
!help --blockdev ?
!help --blockdev driver=help
!help --blockdev qcow2,help
!help --blockdev driver=qcow2,help
? --blockdev bogus,help
!help --blockdev raw,help
? --object help
!help --object qom-type=help
? --object secret,help
? --object secret,?
? --object qom-type=secret,help
? --object throttle-group,help
? --object tls-creds-x509,help
? --object tls-creds-psk,help
? --object iothread,help
? --object authz-list,help
!no-type --object bogus,help
? --chardev help
!help --chardev socket,help
? --chardev backend=help
!no-type --chardev bogus,help
!help --export help
!help --export nbd,help
!help --export type=help
? --export bogus,help
!help --monitor help
? --monitor c,help
!help --nbd-server help
? --nbd-server addr.type=unix,help
= --blockdev ''
= --blockdev null-co
--blockdev null-co,node-name=
--blockdev null-co,node-name=1n
= --blockdev bogus,node-name=n
= --blockdev node-name=n
= --blockdev file,node-name=n
= --blockdev file,node-name=n,filename=missing
--blockdev file,node-name=n,filename=.
= --blockdev raw,node-name=n,file=nope
= --blockdev qcow2,node-name=n,file.driver=file,file.filename=raw.raw
= --blockdev null-co,node-name=n --blockdev null-co,node-name=n
--blockdev '{'
= --blockdev '[]'
= --blockdev '{"driver": "null-co"}'
= --blockdev '{"driver": "null-co", "node-name": "n", "bogus": 1}'
--blockdev null-co,node-name=n,size=x
!abort --blockdev null-co,node-name=n,size=-1
!suffix = --blockdev null-co,node-name=n,size=1.5k --pidfile /nonexistent/p
--blockdev null-co,node-name=n,,x
sh @ --blockdev null-co,node-name=n,size=1048576 --chardev stdio,id=c --monitor c <quit
sh @ --blockdev null-co,node-name=n,size=1048576 --chardev stdio,id=c --monitor c <nodes
sh @ --blockdev '{"driver": "null-co", "node-name": "n", "size": 1048576}' --chardev stdio,id=c --monitor c <nodes
--chardev ''
= --chardev stdio
= --chardev stdio,id=
= --chardev stdio,id=1
--chardev stdio,id=c --chardev stdio,id=c
= --chardev bogus,id=c
--chardev stdio,id=c,bogus=1
--chardev socket,id=c
--chardev socket,id=c,path=/nonexistent/s
--chardev socket,id=c,path=/nonexistent/s,server=on,wait=off
--chardev socket,id=c,path=/nonexistent/s,server,nowait
--chardev socket,id=c,path=s,server=maybe
--chardev socket,id=c,host=127.0.0.1,port=x,server=on,wait=off
--chardev socket,id=c,host=127.0.0.1,port=1
--chardev '{"id": "c"}'
--chardev file,id=c
--chardev file,id=c,path=/nonexistent/x
--chardev socket,id=c,path=/nonexistent/s,reconnect=x
--chardev socket,id=c,path=s,server=on,wait=off,reconnect=1
--chardev socket,id=c,path=s,server=on,wait=off,telnet=maybe
--chardev socket,id=c,type=vsock,cid=3,port=4,server=on
--chardev socket,id=c,host=localhost,port=x,numeric=on,server=on,wait=off
--chardev socket,id=c,host=127.0.0.1,port=x,to=9,server=on,wait=off
--chardev pipe,id=c,path=missing
--chardev null,id=c --monitor c --bogus
= --monitor ''
= --monitor bogus
= --monitor chardev=bogus
= --monitor mode=control
= --monitor '{"chardev": "bogus"}'
--monitor '{'
--chardev stdio,id=c --monitor c,mode=bogus
--chardev stdio,id=c --monitor c,mode=readline
= --chardev stdio,id=c --monitor c,bogus=1
= --chardev stdio,id=c --monitor c,pretty=maybe
= --chardev socket,id=c,path=s,server=on,wait=off --monitor c --monitor c
= --chardev socket,id=c,path=s,server=on,wait=off --monitor c,id=m --monitor c,id=m
= --object ''
= --object bogus,id=x
= --object secret
--object secret,id=s
= --object secret,id=s,data=x,bogus=1
--object secret,id=1s,data=x
--object secret,id=s,data=x --object secret,id=s,data=x
= --object secret,data=x
--object '{"qom-type": "secret", "id": "s"}'
--object '{'
--object secret,id=s,file=missing
--object tls-creds-x509,id=t,dir=missing,endpoint=server
--object tls-creds-psk,id=t,dir=missing,endpoint=server
--object tls-creds-psk,id=t,endpoint=server
= --object tls-creds-x509,id=t,dir=.,endpoint=bogus
--object throttle-group,id=t,limits.iops-total=-1
--object throttle-group,id=t,x-iops-total=1,x-iops-read=1
sh @ --object secret,id=s,data=x --chardev stdio,id=c --monitor c <quit
sh @ --object '{"qom-type": "secret", "id": "s", "data": "x"}' --chardev stdio,id=c --monitor c <quit
= --export ''
= --export nbd
= --export nbd,id=e
= --export nbd,id=e,node-name=n
= --export bogus,id=e,node-name=n
= --blockdev null-co,node-name=n --export nbd,id=e,node-name=n
= --nbd-server addr.type=unix,addr.path=s --export nbd,id=e,node-name=n
= --nbd-server addr.type=unix,addr.path=s --blockdev null-co,node-name=n --export nbd,id=e,node-name=n --export nbd,id=e,node-name=n,name=x
= --nbd-server addr.type=unix,addr.path=s --blockdev null-co,node-name=n --export nbd,id=e,node-name=n --export nbd,id=f,node-name=n
--nbd-server addr.type=unix,addr.path=s --blockdev null-co,node-name=n --export nbd,id=e,node-name=n,bitmaps.0=none
= --nbd-server addr.type=unix,addr.path=s --blockdev null-co,node-name=n --export nbd,id=e,node-name=n,bitmap=none
= --nbd-server addr.type=unix,addr.path=s --blockdev null-co,node-name=n --export nbd,id=e,node-name=n,bitmap.0=none
= --nbd-server addr.type=unix,addr.path=s --blockdev null-co,node-name=n --export nbd,id=e,node-name=n,writable=maybe
= --nbd-server addr.type=unix,addr.path=s --blockdev null-co,node-name=n --export nbd,id=1e,node-name=n
--nbd-server addr.type=unix,addr.path=s --blockdev null-co,node-name=n,read-only=on --export nbd,id=e,node-name=n,writable=on
= --nbd-server ''
= --nbd-server bogus=1
= --nbd-server addr.type=bogus
= --nbd-server addr.type=unix
--nbd-server addr.type=unix,addr.path=/nonexistent/s
--nbd-server addr.type=unix,addr.path=s,tls-creds=no
!authz --nbd-server addr.type=unix,addr.path=s,tls-authz=no
--nbd-server addr.type=unix,addr.path=s,max-connections=-1
--nbd-server addr.type=unix,addr.path=s,max-connections=x
= --nbd-server addr.type=unix,addr.path=s,bogus=1
= --nbd-server addr.type=inet,addr.host=127.0.0.1
--nbd-server addr.type=inet,addr.host=127.0.0.1,addr.port=x
--nbd-server addr.type=inet,addr.host=203.0.113.1,addr.port=1
--nbd-server addr.type=fd,addr.str=x
= --nbd-server '{"addr": {"type": "unix"}}'
--nbd-server '{'
= --nbd-server addr.type=unix,addr.path=s --nbd-server addr.type=unix,addr.path=s
= --nbd-server addr.type=unix,addr.path=s --bogus
sh @ --nbd-server addr.type=unix,addr.path=s --chardev stdio,id=c --monitor c <quit
sh @ --nbd-server '{"addr": {"type": "unix", "path": "s"}}' --chardev stdio,id=c --monitor c <quit
sh @ --nbd-server addr.type=unix,addr.path=s,max-connections=0 --chardev stdio,id=c --monitor c <quit
sh @ --nbd-server addr.type=inet,addr.host=127.0.0.1,addr.port=0 --chardev stdio,id=c --monitor c <quit
? sh @ --nbd-server addr.type=unix,addr.path=s --blockdev null-co,node-name=n --export nbd,id=e,node-name=n --chardev stdio,id=c --monitor c <exports
? sh @ --nbd-server addr.type=unix,addr.path=s --blockdev null-co,node-name=n --export '{"type": "nbd", "id": "e", "node-name": "n"}' --chardev stdio,id=c --monitor c <exports
"""

DIFFERENCES = {
    "help": ("every option that makes something has help", 0, r"Drivers:|[Oo]ptions|Types|List"),
    "no-type": ("what is not there has no help", 1, r"bogus"),
    "abort": ("the peer aborts", 1, r"must be a size"),
    "suffix": ("sizes may have suffixes everywhere", 1, r"cannot create PID file"),
    "authz": ("who may connect cannot be decided without TLS", 1, r"without TLS credentials"),
}


def set_up(directory):
    subprocess.run([os.environ["QEMU_IMG"], "create", "-q", "-f", "raw", "raw.raw", "1M"], cwd=directory, check=True,
                   timeout=60)
    for name, command in (("quit", ""), ("nodes", '{"execute": "blockdev-del", "arguments": {"node-name": "n"}}\n'),
                          ("exports", '{"execute": "query-block-exports"}\n')):
        with open(os.path.join(directory, name), "w", encoding="ascii") as script:
            script.write('{"execute": "qmp_capabilities"}\n' + command + '{"execute": "quit"}\n')


compare_all((("blkstack-nbd", "qemu-nbd", NBD), ("blkstack-daemon", "qemu-storage-daemon", DAEMON)), DIFFERENCES, set_up)
END
