#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes dmg images: RAW IMAGE TYPES [CASE] | list GROUP.

TYPES: letters that the chunks of the disk take in turn: z zlib, b bzip2, r raw, 0 zero, i ignore, and a, f, m for ADC, LZFSE and
LZMA, whose data are rubbish. Zero chunks are made where the disk is zero only. The disk is cut into chunks of 1 to 512 sectors and
into blocks of 5 chunks. CASE makes one thing a lie.
"""
import base64
import bz2
import os
import random
import struct
import sys
import zlib

KINDS = {'0': 0, 'r': 1, 'i': 2, 'a': 0x80000004, 'z': 0x80000005, 'b': 0x80000006, 'f': 0x80000007, 'm': 0x80000008}
COMMENT, END = 0x7ffffffe, 0xffffffff
TYPE, NOTE, SECTOR, SECTORS, OFFSET, BYTES = range(6)


class Image:
    def __init__(self, raw, types):
        self.data, self.blocks = b'', []
        rng = random.Random(int(os.environ.get('SEED', '1')))
        at, number = 0, 0
        while at < len(raw):
            first, chunks = at // 512, [[COMMENT, 0x2b626567, 0, 0, 0, 0]]
            for _ in range(5):
                size = min(len(raw) - at, 512 * rng.randint(1, 512))
                if size == 0:
                    break
                part, kind = raw[at:at + size], types[number % len(types)]
                number += 1
                if kind in '0i' and any(part):
                    kind = 'r'
                packed = {'z': zlib.compress, 'b': bz2.compress, 'r': bytes, 'a': bytes, 'f': bytes, 'm': bytes,
                          '0': lambda d: b'', 'i': lambda d: b''}[kind](part)
                chunks.append([KINDS[kind], 0, at // 512 - first, size // 512, len(self.data), len(packed)])
                self.data += packed
                at += size
            chunks.append([END, 0, at // 512 - first, 0, len(self.data), 0])
            self.blocks.append({'first': first, 'sectors': at // 512 - first, 'data': 0, 'chunks': chunks, 'count': None})
        self.sectors = len(raw) // 512
        self.koly = {'fork': 0, 'segments': 1, 'offset': None, 'bytes': None, 'magic': b'koly', 'size': 512}
        self.pad, self.plist = b'', None
        self.entry = lambda d: '<data>%s</data>' % base64.encodebytes(d).decode()

    def chunk(self, n=0, kind=None):    # the n-th one with data, or of a kind
        found = [c for b in self.blocks for c in b['chunks'] if c[TYPE] not in (COMMENT, END, 0, 2) and kind in (None, c[TYPE])]
        return found[n]

    def block(self, b):
        head = struct.pack('>4sIQQQII24x', b'mish', 1, b['first'], b['sectors'], b['data'], 2048, 0)
        head += struct.pack('>II128x', 2, 32)
        count = len(b['chunks']) if b['count'] is None else b['count']
        return head + struct.pack('>I', count) + b''.join(struct.pack('>IIQQQQ', *c) for c in b['chunks'])

    def xml(self):
        items = ''.join('<dict><key>Attributes</key><string>0x0050</string><key>CFName</key><string>a &amp; b</string>\n'
                        '<key>Data</key>\n%s<key>ID</key><string>%d</string>\n<key>Name</key><string>a</string></dict>\n' % (self.entry(self.block(b)), n)
                        for n, b in enumerate(self.blocks))
        return ('<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE plist PUBLIC "-//Apple Computer//DTD PLIST 1.0//EN" '
                '"http://www.apple.com/DTDs/PropertyList-1.0.dtd">\n<plist version="1.0">\n<dict><key>resource-fork</key>\n'
                '<dict><key>blkx</key><array>\n%s</array>\n<key>plst</key><array><dict><key>Data</key><data>AAAA</data></dict>'
                '</array></dict></dict>\n</plist>\n' % items).encode()

    def write(self, name):
        xml = self.xml() if self.plist is None else self.plist(self.xml())
        k = self.koly
        trailer = struct.pack('>4sIIIQQQQQII16x', k['magic'], 4, k['size'], 1, 0, k['fork'], len(self.data), 0, 0, 1,
                              k['segments'])
        trailer = trailer.ljust(216, b'\0')
        trailer += struct.pack('>QQ', len(self.data) if k['offset'] is None else k['offset'],
                               len(xml) if k['bytes'] is None else k['bytes'])
        trailer = trailer.ljust(488, b'\0') + struct.pack('>IQ', 1, self.sectors)
        with open(name, 'wb') as f:
            f.write(self.data + xml + self.pad + trailer.ljust(512, b'\0'))


def put(i, field, value, n=0, kind=None):
    i.chunk(n, kind)[field] = value


def same_place(i):
    a, b = i.chunk(0, KINDS['z']), i.chunk(1, KINDS['z'])
    b[OFFSET], b[BYTES] = a[OFFSET], a[BYTES]


def repack(i, data):
    c = i.chunk(0, KINDS['z'])
    c[OFFSET], c[BYTES] = len(i.data), len(data)
    i.data += data


REFUSED = {
    'no-magic': lambda i: i.koly.update(magic=b'kolx'),
    'trailer-size': lambda i: i.koly.update(size=511),
    'segments-2': lambda i: i.koly.update(segments=2),
    'no-plist': lambda i: i.koly.update(bytes=0),
    'plist-behind-end': lambda i: i.koly.update(offset=1 << 40),
    'plist-far': lambda i: i.koly.update(offset=(1 << 64) - 1),
    'plist-long': lambda i: i.koly.update(bytes=(1 << 64) - 1),
    'plist-17m': lambda i: setattr(i, 'plist', lambda x: x + b' ' * (17 << 20)),
    'plist-cut': lambda i: setattr(i, 'plist', lambda x: x[:-20]),
    'plist-rubbish': lambda i: setattr(i, 'plist', lambda x: b'\xff' * 1000),
    'plist-empty': lambda i: setattr(i, 'plist', lambda x: b'<plist></plist>'),
    'plist-deep': lambda i: setattr(i, 'plist', lambda x: b'<plist>' + b'<dict>' * 100000 + b'</dict>' * 100000 + b'</plist>'),
    'plist-nul': lambda i: setattr(i, 'plist', lambda x: bytes(100) + x),
    'plist-entity': lambda i: setattr(i, 'plist', lambda x: b'<!DOCTYPE x [<!ENTITY a "b">]><plist><dict><key>&a;</key></dict>'
                                      b'</plist>'),
    'blocks-elsewhere': lambda i: setattr(i, 'plist', lambda x: x.replace(b'resource-fork', b'resource-spoon')),
    'base64-rubbish': lambda i: setattr(i, 'entry', lambda d: '<data>!!!</data>'),
    'block-cut': lambda i: setattr(i, 'entry', lambda d: '<data>%s</data>' % base64.b64encode(d[:150]).decode()),
    'count-large': lambda i: i.blocks[0].update(count=100),
    'count-huge': lambda i: i.blocks[0].update(count=0xffffffff),
    'first-far': lambda i: i.blocks[0].update(first=(1 << 64) - 1),
    'first-2-54': lambda i: i.blocks[0].update(first=1 << 54),
    'data-far': lambda i: i.blocks[0].update(data=(1 << 64) - 1),
    'fork-far': lambda i: i.koly.update(fork=(1 << 64) - 1),
    'sector-far': lambda i: put(i, SECTOR, (1 << 64) - 1),
    'sectors-huge': lambda i: put(i, SECTORS, (1 << 64) - 1),
    'sectors-2-18': lambda i: put(i, SECTORS, 1 << 18, kind=KINDS['z']),
    'raw-short': lambda i: put(i, BYTES, 100, kind=KINDS['r']),
    'offset-far': lambda i: put(i, OFFSET, (1 << 64) - 1),
    'offset-behind-end': lambda i: put(i, OFFSET, 1 << 40),
    'bytes-far': lambda i: put(i, BYTES, (1 << 64) - 1),
    'bytes-behind-end': lambda i: put(i, BYTES, 32 << 20),
    'overlap': lambda i: put(i, SECTOR, 0, 1),
}
READ_FAILS = {
    'zlib-rubbish': lambda i: repack(i, b'\xff' * 500),
    'zlib-short': lambda i: repack(i, zlib.compress(bytes(512))),
    'zlib-bomb': lambda i: repack(i, zlib.compress(bytes(4 << 20))),
    'zlib-cut': lambda i: put(i, BYTES, 20, kind=KINDS['z']),
    'bzip2-bomb': lambda i: (repack(i, bz2.compress(bytes(4 << 20))), put(i, TYPE, KINDS['b'], kind=KINDS['z'])),
    'bzip2-rubbish': lambda i: (repack(i, b'BZh9' + b'\xff' * 500), put(i, TYPE, KINDS['b'], kind=KINDS['z'])),
    'bzip2-short': lambda i: (repack(i, bz2.compress(bytes(512))), put(i, TYPE, KINDS['b'], kind=KINDS['z'])),
    'type-unknown': lambda i: put(i, TYPE, 0x80000099),
    'gap': lambda i: i.blocks[0]['chunks'].pop(1),
    'same-place': same_place,
}
GROUPS = {'refused': REFUSED, 'read-fails': READ_FAILS}

if sys.argv[1] == 'list':
    print('\n'.join(GROUPS[sys.argv[2]]))
else:
    image = Image(open(sys.argv[1], 'rb').read(), sys.argv[3])
    if len(sys.argv) > 4:
        {**REFUSED, **READ_FAILS, 'odd-end': lambda i: setattr(i, 'pad', b'\n' * 77),
         'data-fork': lambda i: (setattr(i, 'data', bytes(100) + i.data), i.koly.update(fork=40),
                                 [b.update(data=60) for b in i.blocks])}[sys.argv[4]](image)
    image.write(sys.argv[2])
