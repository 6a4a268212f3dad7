# SPDX-License-Identifier: MIT
# What a server answers to every command, flag and range of libnbd, one line each; run by nbdsh on a disk of 8 MiB whose
# first MiB is data. The environment says which: URI, STRUCTURED (yes, no), WRITABLE (yes, no).
import errno
import hashlib
import os

import nbd

MiB = 1 << 20
h = nbd.NBD()
h.set_request_structured_replies(os.environ["STRUCTURED"] == "yes")
h.add_meta_context("base:allocation")
h.connect_uri(os.environ["URI"])
h.set_strict_mode(0)        # what libnbd would refuse is the server's to refuse
size = h.get_size()


def say(name, fn, *args, **kwargs):
    try:
        ret = fn(*args, **kwargs)
        if isinstance(ret, (bytes, bytearray)):
            ret = hashlib.md5(ret).hexdigest()
    except nbd.Error as error:
        ret = error.errno
    print(f"{name}: {ret}")


say("size", h.get_size)
say("structured", h.get_structured_replies_negotiated)
for flag in "read_only", "rotational":
    say(flag, getattr(h, "is_" + flag))
for flag in "cache", "df", "fast_zero", "flush", "fua", "trim", "zero", "multi_conn":
    say(flag, getattr(h, "can_" + flag))
say("maximum", h.get_block_size, nbd.SIZE_MAXIMUM)

# Reads: any offset and length, DF, over the end.
for offset, length in (0, 512), (1, 1), (511, 1025), (MiB - 100, 200), (0, 2 * MiB), (size - 1, 1), (4095, 65537):
    say(f"read {offset} {length}", h.pread, length, offset)
    say(f"read {offset} {length} df", h.pread, length, offset, flags=nbd.CMD_FLAG_DF)
for offset, length in (size - 1, 2), (size, 1), (size + 4096, 512), (1 << 62, 512), ((1 << 63) - 512, 512):
    say(f"read {offset} {length}", h.pread, length, offset)
say("read after errors", h.pread, 512, 0)
say("cache", h.cache, 65536, 0)
say("cache past the end", h.cache, 2, size - 1)


def chunks(offset, length, flags):
    seen = []
    h.pread_structured(length, offset, lambda buf, at, status, error: seen.append((at, len(buf), status)), flags=flags)
    holes = sum(n for _, n, status in seen if status == nbd.READ_HOLE)
    return holes, len(seen) == 1


def extents(offset, length, flags=0):
    seen = []
    h.block_status(length, offset, lambda context, at, entries, error: seen.append((context, at, list(entries))), flags)
    return seen


if os.environ["STRUCTURED"] == "yes":
    say("a hole is not sent", chunks, 0, 4 * MiB, 0)
    say("one chunk", chunks, 0, 4 * MiB, nbd.CMD_FLAG_DF)
    for offset, length in (0, size), (MiB, MiB), (MiB // 2, 2 * MiB), (size - 512, 512):
        say(f"status {offset} {length}", extents, offset, length)
        say(f"status {offset} {length} one", extents, offset, length, nbd.CMD_FLAG_REQ_ONE)
    say("status past the end", extents, size - 512, 1024)

# Writes.
for flags in 0, nbd.CMD_FLAG_FUA:
    say(f"write {flags}", h.pwrite, b"\x5a" * 4096, 2 * MiB, flags=flags)
    say(f"write at the end {flags}", h.pwrite, b"\x5b" * 512, size - 512, flags=flags)
    say(f"trim {flags}", h.trim, 65536, 0, flags=flags)
    for zero in 0, nbd.CMD_FLAG_NO_HOLE:
        say(f"zero {flags} {zero}", h.zero, 65536, 131072, flags=flags | zero)
say("fast zero", h.zero, 65536, 262144, flags=nbd.CMD_FLAG_FAST_ZERO)
say("zeroes", h.pread, 200000, 100000)
say("unaligned write", h.pwrite, b"unaligned" * 1000, 3 * MiB + 77)
say("unaligned zero", h.zero, 3333, 3 * MiB + 1111)
say("unaligned read", h.pread, 20000, 3 * MiB - 100)
for offset, length in (size - 1, 2), (size, 1), (1 << 62, 512), ((1 << 63) - 512, 512):
    say(f"write {offset} {length}", h.pwrite, b"x" * length, offset)
    say(f"zero {offset} {length}", h.zero, length, offset)
    say(f"trim {offset} {length}", h.trim, length, offset)
say("flush", h.flush)
say("all", lambda: h.pread(size, 0))
h.shutdown()
