#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""libyal_compare.py FORMAT IMAGE MODEL: do libqcow, libvmdk or libvhdi read from IMAGE what the raw file MODEL holds?

Readers of others, written from the formats' descriptions. They are called without their Python modules, which not every
system has. Exit status: 0 the same, 1 another disk or an image that they cannot read, 77 the library is not installed.
"""
import ctypes
import sys

# FORMAT: library, name of its handle
LIBRARIES = {"qcow": ("libqcow", "file"), "vmdk": ("libvmdk", "handle"), "vpc": ("libvhdi", "file")}
READ = 1    # access flag
PIECE = 1 << 20


class Reader:
    def __init__(self, name, kind):
        try:
            self.library = ctypes.CDLL(name + ".so.1")
        except OSError:
            sys.exit(77)
        self.prefix = "%s_%s_" % (name, kind)
        self.error_text = getattr(self.library, name + "_error_sprint")
        self.handle = ctypes.c_void_p()
        self.call("initialize", ctypes.byref(self.handle))

    def call(self, function, *arguments):
        error = ctypes.c_void_p()
        call = getattr(self.library, self.prefix + function)
        call.restype = ctypes.c_ssize_t if function.startswith("read") else ctypes.c_int
        result = call(*arguments, ctypes.byref(error))
        if result < 0:
            text = ctypes.create_string_buffer(2000)
            self.error_text(error, text, ctypes.c_size_t(len(text)))
            sys.exit("%s%s: %s" % (self.prefix, function, text.value.decode(errors="replace")))
        return result

    def open(self, path):
        self.call("open", self.handle, path.encode(), ctypes.c_int(READ))
        if self.prefix.startswith("libvmdk"):
            self.call("open_extent_data_files", self.handle)
        size = ctypes.c_uint64()
        self.call("get_media_size", self.handle, ctypes.byref(size))
        return size.value

    def read(self, offset, size):
        buffer = ctypes.create_string_buffer(size)
        count = self.call("read_buffer_at_offset", self.handle, buffer, ctypes.c_size_t(size), ctypes.c_int64(offset))
        return buffer.raw[:count]


def main():
    form, image, model = sys.argv[1:]
    reader = Reader(*LIBRARIES[form])
    size, offset = reader.open(image), 0
    with open(model, "rb") as file:
        while offset < size:
            want = file.read(min(PIECE, size - offset))
            if not want:
                sys.exit("%s is shorter than %s, of %d bytes" % (model, image, size))
            if reader.read(offset, len(want)) != want:
                sys.exit("the bytes at %d differ" % offset)
            offset += len(want)
        if file.read(1):
            sys.exit("%s is longer than %s, of %d bytes" % (model, image, size))


main()
