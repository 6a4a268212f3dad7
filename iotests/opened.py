#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs commands and prints which of some files were opened meanwhile, by whomever: opened.py FILE...

Commands come on standard input, one a line, quoted as for a shell. For each: a line for each file opened, then "status N"
with the exit status of the command, whose output goes to cmd.out.
"""
import ctypes
import os
import shlex
import struct
import subprocess
import sys

IN_OPEN = 0x20
EVENT = struct.Struct('iIII')


def opened(queue, watches):
    """The files that were opened since this was called last."""
    names = set()
    try:
        events = os.read(queue, 65536)
    except BlockingIOError:
        events = b''
    while events:
        watch, _, _, name_bytes = EVENT.unpack_from(events)
        names.add(watches[watch])
        events = events[EVENT.size + name_bytes:]
    return names


def main():
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    watches = {libc.inotify_add_watch(queue, os.fsencode(name), IN_OPEN): name for name in sys.argv[1:]}
    if queue < 0 or -1 in watches:
        sys.exit('inotify: ' + os.strerror(ctypes.get_errno()))
    for line in sys.stdin:
        with open('cmd.out', 'wb') as out:
            status = subprocess.run(shlex.split(line), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                    timeout=60, check=False).returncode
        for name in sorted(opened(queue, watches)):
            print(name)
        print(f'status {status}', flush=True)


main()
