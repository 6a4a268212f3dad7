#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""nbd-clients.py URI COUNT SEED: so many clients at once, each with requests in flight in a part of its own, of which
every byte is verified; parts meet within clusters. Prints "good" or what is wrong."""
import random
import sys

import nbd

STRIPE = 4096
DEPTH = 8
REQUESTS = 60


class Client:
    """Owns each COUNTth stripe of the disk."""

    def __init__(self, number, count, uri, seed):
        self.handle = nbd.NBD()
        self.handle.connect_uri(uri)
        self.random = random.Random(f"{seed} {number}")
        self.stripes = range(number, self.handle.get_size() // STRIPE, count)
        self.content = {}               # stripe: what was written last
        self.busy = {}                  # cookie: what is in flight
        self.left = REQUESTS

    def submit(self):
        stripe = self.random.choice(self.stripes)
        if self.left == 0 or len(self.busy) >= DEPTH or any(stripe == other for _, other, _ in self.busy.values()):
            return
        self.left -= 1
        kind = self.random.choice(("write", "write", "read"))
        if kind == "write":
            data = (b"%d %d " % (stripe, self.left)).ljust(64, b"x") * (STRIPE // 64)
            self.content[stripe] = data
            cookie = self.handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), stripe * STRIPE)
            self.busy[cookie] = kind, stripe, data
        else:
            buffer = nbd.Buffer(STRIPE)
            self.busy[self.handle.aio_pread(buffer, stripe * STRIPE)] = kind, stripe, buffer

    def collect(self):
        self.handle.poll(0)
        for cookie in [cookie for cookie in self.busy if self.handle.aio_command_completed(cookie)]:
            kind, stripe, data = self.busy.pop(cookie)
            if kind == "read" and bytes(data.to_bytearray()) != self.content.get(stripe, bytes(STRIPE)):
                sys.exit(f"stripe {stripe} has other data")

    def verify(self):
        for stripe, data in self.content.items():
            if self.handle.pread(STRIPE, stripe * STRIPE) != data:
                sys.exit(f"stripe {stripe} has other data in the end")


def main():
    uri, count, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    clients = [Client(number, count, uri, seed) for number in range(count)]
    while any(client.left or client.busy for client in clients):
        for client in clients:
            client.submit()
            client.collect()
    clients[0].handle.flush()
    for client, other in zip(clients, clients[1:] + clients[:1]):
        client.handle, other.handle = other.handle, client.handle       # what one wrote the other finds
        client.verify()
    print(f"good: {sum(len(client.content) for client in clients)} stripes of {count} clients")


main()
