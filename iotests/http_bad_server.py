#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A web server that lies, stumbles and stops: http_bad_server.py FILE PORT-FILE serves FILE as /FAULT/N, until it is killed.

N is any number: faults that depend on how often they were met count for each path by itself. GET /FAULT/N/count says how many
requests there were.
"""
import os
import re
import socketserver
import sys
import time

DATA = open(sys.argv[1], 'rb').read()
OTHER = bytes(b ^ 255 for b in DATA)
TOTAL = len(DATA)
TRANSIENT = {'408': 408, '429': 429, '500': 500, '502': 502, '503': 503, '504': 504}
counts = {}


class Handler(socketserver.StreamRequestHandler):
    def head(self, status, *fields):
        lines = ['HTTP/1.1 %d Whatever' % status] + list(fields)
        self.wfile.write(('\r\n'.join(lines) + '\r\n\r\n').encode())

    def part(self, first, last, data=DATA, total=TOTAL, marks=('ETag: "one"',), length=None, extra=()):
        body = data[first:last + 1]
        self.head(206, 'Content-Range: bytes %s-%s/%s' % (first, last, total),
                  'Content-Length: %d' % (len(body) if length is None else length), *marks, *extra)
        self.wfile.write(body)

    def handle(self):
        line = self.rfile.readline().decode()
        fields = {}
        while True:
            field = self.rfile.readline().decode().strip()
            if not field:
                break
            name, _, value = field.partition(':')
            fields[name.lower()] = value.strip()
        path = line.split()[1]
        if path.endswith('/count'):
            body = b'%d' % counts.get(path[:-6], 0)
            self.head(200, 'Content-Length: %d' % len(body))
            self.wfile.write(body)
            return
        fault = path.split('/')[1]
        counts[path] = counts.get(path, 0) + 1
        match = re.match(r'bytes=(\d+)-(\d+)$', fields.get('range', ''))
        if not match:
            self.head(400)
            return
        first, last = int(match[1]), min(int(match[2]), TOTAL - 1)
        self.answer(fault, counts[path], first, last, fields)

    def answer(self, fault, count, first, last, fields):
        middle = (first + last) // 2
        later = count > 1
        if fault == 'good':
            self.part(first, last)
        elif fault == 'silent':
            time.sleep(30)
        elif fault == 'silent-in-body':
            self.head(206, 'Content-Range: bytes %d-%d/%d' % (first, last, TOTAL))
            self.wfile.write(DATA[first:middle])
            time.sleep(30)
        elif fault == 'vanish':
            pass
        elif fault == 'rubbish':
            self.wfile.write(b'SSH-2.0-OpenSSH_9.2\r\n' * 100)
        elif fault == 'binary':
            self.wfile.write(bytes(range(256)) * 16)
        elif fault == 'endless-head':
            self.wfile.write(b'HTTP/1.1 206 Well\r\n')
            while True:
                self.wfile.write(b'X-Long: ' + b'x' * 1000 + b'\r\n')
        elif fault == 'endless-line':
            self.wfile.write(b'HTTP/1.1 206 Well\r\nX-Long: ')
            while True:
                self.wfile.write(b'x' * 4096)
        elif fault == 'endless-body':
            self.head(206, 'Content-Range: bytes %d-%d/%d' % (first, last, TOTAL))
            while True:
                self.wfile.write(DATA)
        elif fault == 'endless-continue':
            while True:
                self.wfile.write(b'HTTP/1.1 100 Continue\r\n\r\n' * 100)
        elif fault == 'whole':
            self.head(200, 'Content-Length: %d' % TOTAL)
            self.wfile.write(DATA)
        elif fault == 'no-range':
            self.head(206, 'Content-Length: %d' % (last + 1 - first))
            self.wfile.write(DATA[first:last + 1])
        elif fault == 'no-total':
            self.part(first, last, total='*')
        elif fault == 'huge-total':
            self.part(first, last, total=1 << 63)
        elif fault == 'negative':
            self.part(first, last, total='-5')
        elif fault == 'elsewhere':
            self.part(first + 1, last)
        elif fault == 'further':
            self.part(first, last + 512, total=TOTAL + 512)
        elif fault == 'less':
            self.part(first, middle)
        elif fault == 'backwards':
            self.head(206, 'Content-Range: bytes %d-%d/%d' % (last, first, TOTAL))
        elif fault == 'longer':
            self.head(206, 'Content-Range: bytes %d-%d/%d' % (first, last, TOTAL))
            self.wfile.write(DATA[first:last + 1] + b'more')
        elif fault == 'shorter':
            self.head(206, 'Content-Range: bytes %d-%d/%d' % (first, last, TOTAL), 'Content-Length: 100')
            self.wfile.write(DATA[first:first + 100])
        elif fault == 'multipart':
            self.head(206, 'Content-Type: multipart/byteranges; boundary=x', 'Content-Length: 4')
            self.wfile.write(b'--x\n')
        elif fault == 'encoded':
            self.part(first, last, extra=('Content-Encoding: gzip',))
        elif fault == 'says-none':
            self.part(first, last, extra=('Accept-Ranges: none',))
        elif fault == 'empty':
            self.head(416, 'Content-Range: bytes */0', 'Content-Length: 0')
        elif fault == 'escape':
            self.head(404, 'X: \033[31m')
        elif fault in TRANSIENT:
            self.head(TRANSIENT[fault], 'Content-Length: 3')
            self.wfile.write(b'no\n')
        elif fault == '503-twice' and count <= 2:
            self.head(503, 'Retry-After: 0', 'Content-Length: 0')
        elif fault == 'cut' and count % 2 == 1:
            self.head(206, 'Content-Range: bytes %d-%d/%d' % (first, last, TOTAL), 'ETag: "one"',
                      'Content-Length: %d' % (last + 1 - first))
            self.wfile.write(DATA[first:middle])
        elif fault == 'cut-and-changed' and later:      # the rest is of another version, if nobody looks
            self.part(first, last, data=OTHER, marks=('ETag: "two"',))
        elif fault == 'cut-and-changed':
            self.head(206, 'Content-Range: bytes %d-%d/%d' % (first, last, TOTAL), 'ETag: "one"',
                      'Content-Length: %d' % (last + 1 - first))
            self.wfile.write(DATA[first:middle])
        elif fault == 'changed-etag' and later:
            self.part(first, last, data=OTHER, marks=('ETag: "two"',))
        elif fault == 'changed-weak-etag':
            self.part(first, last, data=OTHER if later else DATA, marks=('ETag: W/"%s"' % later,))
        elif fault == 'lost-etag' and later:
            self.part(first, last, data=OTHER, marks=())
        elif fault == 'changed-time':
            self.part(first, last, data=OTHER if later else DATA,
                      marks=('Last-Modified: Mon, 0%d Jan 2024 00:00:00 GMT' % (1 + later),))
        elif fault == 'changed-length' and later:
            self.part(first, last, total=TOTAL + 1, marks=())
        elif fault == 'changed-length':
            self.part(first, last, marks=())
        elif fault == 'changed-whole' and later:        # what RFC 9110 wants of a server whose file changed
            ok = fields.get('if-range') == '"one"'
            self.head(200 if ok else 500, 'ETag: "two"', 'Content-Length: %d' % TOTAL)
            self.wfile.write(OTHER)
        elif fault == 'shrunk' and later:
            self.head(416, 'Content-Range: bytes */100', 'Content-Length: 0')
        elif fault == 'if-range-time':                  # a weak ETag is no mark for If-Range: the time is
            if later and fields.get('if-range') != 'Mon, 01 Jan 2024 00:00:00 GMT':
                self.head(500)
            else:
                self.part(first, last, marks=('ETag: W/"x"', 'Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT'))
        else:
            self.part(first, last)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        pass                    # clients that have heard enough


server = Server(('127.0.0.1', 0), Handler)
with open(sys.argv[2] + '.new', 'w') as f:
    f.write(str(server.server_address[1]))
os.rename(sys.argv[2] + '.new', sys.argv[2])
server.serve_forever()
