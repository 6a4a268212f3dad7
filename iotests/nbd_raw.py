# SPDX-License-Identifier: MIT
"""An NBD client that says whatever it is told to, byte by byte: for nbd-hostile.py, nbd-fuzz.py and others.

Numbers are those of the protocol's specification.
"""
import socket
import ssl
import struct

OPTION_MAGIC, REPLY_MAGIC, REQUEST_MAGIC, EXTENDED_MAGIC = 0x49484156454F5054, 0x3E889045565A9, 0x25609513, 0x21E41C71
SIMPLE_REPLY, STRUCTURED_REPLY, EXTENDED_REPLY = 0x67446698, 0x668E33EF, 0x6E8A278C
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED, LIST_META, SET_META, EXTENDED = 1, 2, 3, 5, 6, 7, 8, 9, 10, 11
ACK, SERVER, REP_INFO = 1, 2, 3
UNSUP, POLICY, INVALID, TLS_REQD, UNKNOWN, TOO_BIG = (1 << 31 | n for n in (1, 2, 3, 5, 6, 9))
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
PAYLOAD_LEN = 1 << 5      # a flag
EINVAL, ENOSPC, EOVERFLOW, ENOTSUP = 22, 28, 75, 95
GREETING = b"NBDMAGICIHAVEOPT"
PATIENCE = 30       # seconds


class Gone(Exception):
    """The server has closed the connection."""


def option(number, data=b"", length=None, magic=OPTION_MAGIC):
    return struct.pack(">QII", magic, number, len(data) if length is None else length) + data


def go_data(name=b"", infos=(), name_bytes=None):
    return (struct.pack(">I", len(name) if name_bytes is None else name_bytes) + name +
            struct.pack(f">H{len(infos)}H", len(infos), *infos))


def request(command, offset=0, length=0, payload=b"", flags=0, cookie=1, magic=REQUEST_MAGIC):
    return struct.pack(">IHHQQI", magic, flags, command, cookie, offset, length) + payload


def extended_request(command, offset=0, length=0, payload=b"", flags=0, cookie=1):
    return struct.pack(">IHHQQQ", EXTENDED_MAGIC, flags, command, cookie, offset, length) + payload


class Raw:
    """A connection. It is in its handshake until negotiate() has returned."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise Gone from None

    def recv(self, count):
        data = bytearray()
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionResetError:
                raise Gone from None
            if not piece:
                raise Gone
            data += piece
        return bytes(data)

    def is_gone(self):
        """Waits for the server to close the connection; what it still sends is not looked at."""
        try:
            while True:
                self.recv(1)
        except Gone:
            return True
        except TimeoutError:
            return False

    # ---- handshake ----

    def greet(self, flags=3):
        assert self.recv(18)[:16] == GREETING
        self.send(struct.pack(">I", flags))
        return self

    def option_reply(self):
        """Returns: type, data."""
        magic, _, kind, length = struct.unpack(">QIII", self.recv(20))
        assert magic == REPLY_MAGIC, f"magic number {magic:x}"
        assert length <= 8192, f"an option reply of {length} bytes"
        return kind, self.recv(length)

    def ask(self, number, data=b"", **more):
        """Sends an option. Returns: the type of the last reply."""
        self.send(option(number, data, **more))
        return self.last_reply()

    def last_reply(self):
        while True:
            kind, _ = self.option_reply()
            if kind not in (SERVER, REP_INFO, 4):
                return kind

    def begin_tls(self):
        """The rest of the connection is encrypted; nobody's certificate is looked at."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket)
        return self

    def negotiate(self, name=b"", extended=False, structured=False, tls=False):
        self.greet()
        if tls:
            assert self.ask(STARTTLS) == ACK
            self.begin_tls()
        if extended:
            assert self.ask(EXTENDED) == ACK
        elif structured:
            assert self.ask(STRUCTURED) == ACK
        assert self.ask(GO, go_data(name)) == ACK
        return self

    # ---- transmission ----

    def simple_reply(self, data_bytes=0):
        """Returns: error, data."""
        magic, error, _ = struct.unpack(">IIQ", self.recv(16))
        assert magic == SIMPLE_REPLY, f"magic number {magic:x}"
        return error, self.recv(0 if error else data_bytes)

    def extended_error(self):
        """The error of a request with an extended header, or 0: all chunks are read."""
        error = 0
        while True:
            magic, flags, kind, _, _, length = struct.unpack(">IHHQQQ", self.recv(32))
            assert magic == EXTENDED_REPLY, f"magic number {magic:x}"
            assert length <= 33 << 20, f"a chunk of {length} bytes"
            payload = self.recv(length)
            if kind & 0x8000:
                error = struct.unpack(">I", payload[:4])[0]
            if flags & 1:
                return error
