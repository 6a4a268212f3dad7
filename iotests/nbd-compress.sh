#!/bin/bash
# SPDX-License-Identifier: MIT
# Through --compress any NBD client may write pieces of any size anywhere, also over what is compressed, and finds them
# again; the image stays compressed and sound.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires nbdsh qemu-img

new_image 8M
model_from_image
our_serve --compress -f qcow2 disk.qcow2
say_seed

# Writes, zeroes and trims at random places, of random sizes, many at a time over three connections, on the server and
# in memory; a flush on one connection covers what the others wrote.
cat >writer.py <<'PY'
import os
import random

import nbd

rng = random.Random(int(os.environ["SEED"]))
conns = []
for _ in range(3):
    h = nbd.NBD()
    h.connect_uri(os.environ["URI"])
    conns.append(h)
size = conns[0].get_size()
model = bytearray(size)
words = [bytes(rng.randrange(97, 123) for _ in range(rng.randrange(2, 9))) + b" " for _ in range(100)]


def text(n):
    out = bytearray()
    while len(out) < n:
        out += rng.choice(words)
    return bytes(out[:n])


for round in range(25):
    cookies = []
    at = 0
    while at < size:            # ranges that do not overlap, in any order of their completion
        n = rng.choice([1, 511, 512, 4096, 4096, 4096, 10000, 65536, 100001])
        at += rng.randrange(200000)
        n = min(n, size - at)
        if n <= 0:
            break
        h = rng.choice(conns)
        kind = rng.randrange(10)
        if kind < 7:
            data = text(n)
            cookies.append((h, h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), at)))
            model[at:at + n] = data
        else:
            cookies.append((h, h.aio_zero(n, at, flags=rng.choice([0, nbd.CMD_FLAG_NO_HOLE]))))
            model[at:at + n] = bytes(n)
        at += n
    for h, cookie in cookies:
        while not h.aio_command_completed(cookie):
            h.poll(-1)
    if round % 5 == 0:
        rng.choice(conns).flush()
    h = rng.choice(conns)
    for _ in range(20):
        at = rng.randrange(size)
        n = min(rng.choice([1, 4096, 70000, 300000]), size - at)
        got = h.pread(n, at)
        assert got == model[at:at + n], f"round {round}: {n} bytes at {at} differ"
for h in conns:
    h.shutdown()
with open("model.raw", "wb") as out:
    out.write(model)
PY
SEED=$SEED URI=$nbd_uri succeeds "what was written is read again" timeout 100 nbdsh -c - <writer.py
stop_server
agrees "the image"
num_ok "$(check_number disk.qcow2 compressed-clusters) > 100" "it is compressed"
done_testing
