#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""nbd-hostile-tls.py SOCKET: clients that attack the beginning of TLS. Prints "good" or "bad" for each attack."""
import os
import ssl
import sys

from nbd_raw import ACK, EXPORT_NAME, GO, INFO, LIST, READ, SET_META, STARTTLS, STRUCTURED, TLS_REQD, Gone, Raw, go_data, \
    option, request

PATH = sys.argv[1]


def nothing_without_tls():
    with Raw(PATH) as raw:
        raw.greet()
        for number, data in ((LIST, b""), (INFO, go_data()), (GO, go_data()), (STRUCTURED, b""), (SET_META, go_data())):
            assert raw.ask(number, data) == TLS_REQD, f"option {number} without TLS"
    with Raw(PATH) as raw:
        raw.greet().send(option(EXPORT_NAME))
        assert raw.is_gone(), "an export without TLS"


def what_was_said_before_is_forgotten():
    with Raw(PATH) as raw:
        raw.greet()
        assert raw.ask(STRUCTURED) == TLS_REQD
        assert raw.ask(STARTTLS) == ACK
        raw.begin_tls()
        assert raw.ask(GO, go_data()) == ACK
        raw.send(request(READ, 0, 512))
        assert raw.simple_reply(512)[0] == 0


def plain_text_behind_starttls():
    """H25: sent together with STARTTLS, it is neither answered in plain text nor taken for what came encrypted."""
    for injected in (option(LIST), option(STRUCTURED), option(GO, go_data()), option(STRUCTURED)[:7]):
        with Raw(PATH) as raw:
            raw.greet().send(option(STARTTLS) + injected)
            try:
                assert raw.last_reply() == ACK, "STARTTLS is refused"
                raw.begin_tls()
                raw.ask(LIST)
            except (Gone, ssl.SSLError, ConnectionError):
                continue
            raise AssertionError(f"{injected} behind STARTTLS is accepted")


def no_tls_behind_starttls():
    for rubbish in (b"", b"x" * 5, os.urandom(300), b"\x16\x03\x01\xff\xff" + bytes(1000), option(GO, go_data())):
        with Raw(PATH) as raw:
            raw.greet()
            assert raw.ask(STARTTLS) == ACK
            raw.send(rubbish)
            raw.socket.shutdown(1)
            assert raw.is_gone(), f"the server goes on after {rubbish[:20]}"


def starttls_twice():
    with Raw(PATH) as raw:
        raw.greet()
        assert raw.ask(STARTTLS) == ACK
        raw.begin_tls()
        assert raw.ask(STARTTLS) & 1 << 31, "TLS within TLS"
        assert raw.ask(GO, go_data()) == ACK


for attack in (nothing_without_tls, what_was_said_before_is_forgotten, plain_text_behind_starttls, no_tls_behind_starttls,
               starttls_twice, what_was_said_before_is_forgotten):
    try:
        attack()
        print("good", attack.__name__.replace("_", " "))
    except (AssertionError, Gone, OSError) as error:
        print("bad", attack.__name__.replace("_", " "), type(error).__name__, error)
