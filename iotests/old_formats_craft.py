#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes hostile qcow and Parallels images: list GROUP | IMAGE GROUP CASE.

IMAGE is a sound one: qcow of the peer with clusters of 4 KiB, a backing file name, plain data in the first 64 KiB and compressed
data from 128 KiB on; Parallels of the peer with clusters of 64 KiB and data in the first two. CASE changes it in place.
"""
import struct
import sys
import zlib

FORMATS = {1: 'B', 2: 'H', 4: 'I', 8: 'Q'}


class Image:
    def __init__(self, name, order):
        self.file = open(name, 'r+b')
        self.order = order

    def get(self, offset, size=8):
        self.file.seek(offset)
        return struct.unpack(self.order + FORMATS[size], self.file.read(size))[0]

    def put(self, offset, value, size=8):
        self.file.seek(offset)
        self.file.write(struct.pack(self.order + FORMATS[size], value))

    def bytes(self, offset, data):
        self.file.seek(offset)
        self.file.write(data)

    def length(self):
        return self.file.seek(0, 2)


def l2(i, guest):           # where the entry of a guest cluster lies
    return i.get(i.get(40)) + guest // 4096 * 8


def payload(i, data):       # instead of that of guest offset 128k
    place = i.length()
    i.bytes(place, data)
    i.put(l2(i, 131072), 1 << 63 | len(data) << 51 | place)


def deflate(data):
    coder = zlib.compressobj(9, zlib.DEFLATED, -12)
    return coder.compress(data) + coder.flush()


QCOW_HEADER = {
    'version-0': lambda i: i.put(4, 0, 4),
    'cluster-bits-0': lambda i: i.put(32, 0, 1),
    'cluster-bits-8': lambda i: i.put(32, 8, 1),
    'cluster-bits-17': lambda i: i.put(32, 17, 1),
    'cluster-bits-64': lambda i: i.put(32, 64, 1),
    'cluster-bits-255': lambda i: i.put(32, 255, 1),
    'l2-bits-0': lambda i: i.put(33, 0, 1),
    'l2-bits-5': lambda i: i.put(33, 5, 1),
    'l2-bits-14': lambda i: i.put(33, 14, 1),
    'l2-bits-54': lambda i: i.put(33, 54, 1),
    'l2-bits-255': lambda i: i.put(33, 255, 1),
    'size-0': lambda i: i.put(24, 0),
    'size-2-50': lambda i: i.put(24, 1 << 50),
    'size-2-63': lambda i: i.put(24, 1 << 63),
    'size-max': lambda i: i.put(24, (1 << 64) - 1),
    'l1-at-0': lambda i: i.put(40, 0),
    'l1-odd': lambda i: i.put(40, 49),
    'l1-behind-end': lambda i: i.put(40, i.length()),
    'l1-across-end': lambda i: i.put(40, i.length() // 8 * 8 - 8) or i.put(24, 1 << 30),
    'l1-far': lambda i: i.put(40, (1 << 64) - 8),
    'name-behind-end': lambda i: i.put(8, i.length()),
    'name-far': lambda i: i.put(8, (1 << 64) - 2),
    'name-empty': lambda i: i.put(16, 0, 4),
    'name-1024': lambda i: i.put(16, 1024, 4),
    'name-huge': lambda i: i.put(16, 0xffffffff, 4),
    'name-nul': lambda i: i.put(i.get(8) + 1, 0, 1),
    'cut-in-header': lambda i: i.file.truncate(40),
    'cut-before-l1': lambda i: i.file.truncate(i.get(40)),
}
QCOW_PLAIN = {      # reading guest offset 0 fails
    'l1-entry-odd': lambda i: i.put(i.get(40), i.get(i.get(40)) + 1),
    'l1-entry-in-header': lambda i: i.put(i.get(40), 8),
    'l1-entry-behind-end': lambda i: i.put(i.get(40), (i.length() + 4095) // 4096 * 4096),
    'l1-entry-far': lambda i: i.put(i.get(40), (1 << 64) - 8),
    'entry-in-header': lambda i: i.put(l2(i, 0), 1),
    'entry-behind-end': lambda i: i.put(l2(i, 0), (i.length() + 4095) // 4096 * 4096),
    'entry-far': lambda i: i.put(l2(i, 0), (1 << 63) - 4096),
}
QCOW_PACKED = {     # reading guest offset 128k fails
    'payload-empty': lambda i: i.put(l2(i, 131072), 1 << 63 | i.get(l2(i, 131072)) & (1 << 51) - 1),
    'payload-behind-end': lambda i: i.put(l2(i, 131072), 1 << 63 | 100 << 51 | i.length() + 511),
    'payload-far': lambda i: i.put(l2(i, 131072), (1 << 64) - 1),
    'payload-in-header': lambda i: i.put(l2(i, 131072), 1 << 63 | 100 << 51),
    'payload-rubbish': lambda i: payload(i, b'\xff' * 100),
    'payload-cut': lambda i: payload(i, deflate(bytes(range(256)) * 16)[:-9]),
    'payload-short': lambda i: payload(i, deflate(bytes(4095))),
    'payload-long': lambda i: payload(i, deflate(bytes(4097))),
    'payload-bomb': lambda i: payload(i, deflate(bytes(1 << 21))[:4000]),
}
PARALLELS_HEADER = {
    'version-1': lambda i: i.put(16, 1, 4),
    'version-3': lambda i: i.put(16, 3, 4),
    'cluster-0': lambda i: i.put(28, 0, 4),
    'cluster-huge': lambda i: i.put(28, 0xffffffff, 4),
    'cluster-2-22': lambda i: i.put(28, 1 << 22, 4),
    'entries-0': lambda i: i.put(32, 0, 4),
    'entries-few': lambda i: i.put(32, i.get(32, 4) - 1, 4),
    'entries-huge': lambda i: i.put(32, 0xffffffff, 4),
    'sectors-many': lambda i: i.put(36, i.get(36) + 1024),
    'sectors-2-55': lambda i: i.put(36, 1 << 55),
    'sectors-max': lambda i: i.put(36, (1 << 64) - 1),
    'cut-in-header': lambda i: i.file.truncate(20),
    'cut-in-table': lambda i: i.put(32, 2000, 4) or i.file.truncate(4096),
}
PARALLELS_ENTRY = {     # reading guest offset 0 fails
    'entry-max': lambda i: i.put(64, 0xffffffff, 4),
    'entry-behind-end': lambda i: i.put(64, i.length() // 65536 + 1, 4),
    'entry-in-table': lambda i: i.bytes(0, b'WithoutFreeSpace') or i.put(64, 1, 4) or i.put(32, 200, 4),
}
GROUPS = {
    'qcow-header': ('>', QCOW_HEADER), 'qcow-plain': ('>', QCOW_PLAIN), 'qcow-packed': ('>', QCOW_PACKED),
    'parallels-header': ('<', PARALLELS_HEADER), 'parallels-entry': ('<', PARALLELS_ENTRY),
}

if sys.argv[1] == 'list':
    print('\n'.join(GROUPS[sys.argv[2]][1]))
else:
    order, cases = GROUPS[sys.argv[2]]
    cases[sys.argv[3]](Image(sys.argv[1], order))
