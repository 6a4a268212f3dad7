# SPDX-License-Identifier: MIT
"""launch.py FD PROGRAM ARGUMENT...: runs a program and writes "WALL CPU PEAK STATUS" to FD, in seconds, bytes and as
os.waitstatus_to_exitcode() tells.

The kernel counts in a program's peak memory what the process that started it had. So that is this one, which imports
nothing more than the interpreter itself (python3 -I -S, about 9 MiB).
"""
import os
import sys
import time

start = time.monotonic()
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
wall = time.monotonic() - start
os.write(int(sys.argv[1]), f"{wall} {usage.ru_utime + usage.ru_stime} {usage.ru_maxrss * 1024} "
         f"{os.waitstatus_to_exitcode(status)}".encode())
