#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs a command and prints which of some files were opened meanwhile, by whomever: opened.py FILE... -- COMMAND...

One line for each file opened, then "status N" with the exit status of the command, whose output goes to cmd.out.
"""
import ctypes
import os
import struct
import subprocess
import sys

IN_OPEN = 0x20
EVENT = struct.Struct('iIII')


def main():
    cut = sys.argv.index('--')
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    watches = {libc.inotify_add_watch(queue, os.fsencode(name), IN_OPEN): name for name in sys.argv[1:cut]}
    if queue < 0 or -1 in watches:
        sys.exit('inotify: ' + os.strerror(ctypes.get_errno()))
    with open('cmd.out', 'wb') as out:
        status = subprocess.run(sys.argv[cut + 1:], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                timeout=60, check=False).returncode
    try:
        events = os.read(queue, 65536)
    except BlockingIOError:
        events = b''
    opened = set()
    while events:
        watch, _, _, name_bytes = EVENT.unpack_from(events)
        opened.add(watches[watch])
        events = events[EVENT.size + name_bytes:]
    for name in sorted(opened):
        print(name)
    print(f'status {status}')


main()
