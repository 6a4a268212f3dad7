#!/bin/bash
# SPDX-License-Identifier: MIT
# blkstack-ctl and servers that are silent, hang up, talk nonsense or without end: one sentence, status 1, in bounded time and memory.
. "$(dirname "$0")/lib.sh"
requires python3
any_backend
python_test <<'PYTHON'
import os
import re
import resource
import socket
import subprocess
import threading

from control import CTL, PATIENCE, done_testing, is_equal, ok

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'
DONE = b'{"return": {}}\n'
READY = (GREETING, DONE, b'{"error": {"class": "CommandNotFound", "desc": "no schema"}}\n')     # then the user's command
EVENT = b'{"event": "E", "data": {"text": "' + b"x" * 60000 + b'"}}\n'
PATH = "socket"


def limit_memory():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))


def serve(listener, parts, after):
    """Sends the first part as a greeting, each of the others after a command; and then ends, reads, or sends without end."""
    connection, _ = listener.accept()
    commands = connection.makefile("rb")
    try:
        for part in parts[:1]:
            connection.sendall(part)
        for part in parts[1:]:
            commands.readline()
            connection.sendall(part)
        if after in ("silence", "commands"):
            while commands.readline():
                pass
        while isinstance(after, bytes):
            connection.sendall(after)
    except OSError:
        pass
    commands.close()
    connection.close()


def against(parts, after="end", words=("query-status",), text=None):
    """What the client does about such a server."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(PATH)
    listener.listen()
    thread = threading.Thread(target=serve, args=(listener, parts, after))
    thread.start()
    limited = os.environ.get("IOTEST_TIMEOUT_FACTOR", "1") == "1"       # sanitizers need more memory than a limit allows
    patience = "0.3" if after == "silence" or isinstance(after, bytes) else "60"
    done = subprocess.run([CTL, "-t", patience, PATH, *words], input=text, stdin=None if text else subprocess.DEVNULL,
                          capture_output=True, check=False, text=True, timeout=PATIENCE, preexec_fn=limit_memory if limited else None)
    thread.join(PATIENCE)
    listener.close()
    os.unlink(PATH)
    return done.returncode, done.stdout, done.stderr


CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
SILENT = "has not answered for 0.3 seconds"
for what, message, parts, options in (
        ("hangs up at once", "closed the connection", (), {}),
        ("is silent", "does not greet for 0.3 seconds", (), {"after": "silence"}),
        ("greets in part", "does not greet", (GREETING[:20],), {"after": "silence"}),
        ("hangs up in the middle of a greeting", "closed the connection", (GREETING[:20],), {}),
        ("is silent after the greeting", SILENT, (GREETING,), {"after": "silence"}),
        ("hangs up after the greeting", "closed the connection", (GREETING,), {}),
        ("greets as another kind", "no message of the control protocol", (b"220 mail.example.com ESMTP\n",), {}),
        ("greets with other JSON", "does not greet as", (b"{}\n",), {}),
        ("greets with a list", "no message of the control protocol: it is no object", (b"[]\n",), {}),
        ("greets in Latin 1", "UTF-8", (b'{"QMP": "\xe4"}\n',), {}),
        ("sends zero bytes", "no message", (b"\0\0\n",), {}),
        ("refuses the negotiation", "not today", (GREETING, b'{"error": {"desc": "not today"}}\n'), {"after": "silence"}),
        ("nests deeply", "nested deeper", (b"[" * 100000 + b"\n",), {}),
        ("sends a line without end", "more than 16 MiB", (), {"after": b"x" * (1 << 20)}),
        ("sends events without end", SILENT, READY, {"after": EVENT}),
        ("sends empty lines without end", SILENT, READY, {"after": b"\n" * 65536}),
        ("sends replies to others without end", SILENT, READY, {"after": b'{"return": {}, "id": 99}\n' * 100}),
        ("sends other objects without end", SILENT, READY, {"after": b"{}\n" * 1000}),
        ("sends them faster than they are read", SILENT, READY, {"after": b"{}\n" * 200000}),
        ("sends events faster than they are read", SILENT, READY, {"after": b'{"event": "E"}\n' * 50000}),
        ("sends both to a script", SILENT, READY, {"after": b'{}\n{"event": "E"}\n' * 50000, "words": (), "text": "a\nb\n"}),
        ("sends empty lines instead of a greeting", "does not greet", (), {"after": b"\n" * 200000}),
        ("sends half a reply", SILENT, (*READY, b'{"return": {"status"'), {"after": "silence"}),
        ("hangs up in half a reply", "closed the connection", (*READY, b'{"return": {"status"'), {}),
        ("sends control characters", "a [31mb   2Jc", (*READY, b'{"error": {"desc": "a\\u001b[31mb\\u0007\\u009b2Jc"}}\n'), {}),
        ("gives no reason", "refuses without a reason", (*READY, b'{"error": 7}\n'), {}),
        ("hangs up before the reply", "closed the connection", READY, {}),
        ("hangs up while it is listened to", "closed the connection", READY, {"words": ("events",)}),
        ("is silent about jobs", SILENT, READY, {"after": "silence", "words": ("watch",)}),
        ("is silent to a script", SILENT, READY, {"after": "silence", "words": (), "text": "query-status\nquit\n"}),
        ("hangs up on a script", "closed the connection", READY, {"words": ("-k",), "text": "a\nb\nc\n"})):
    status, out, err = against(parts, **options)
    ok(status == 1 and not out and message in err and err.count("\n") == 1 and not CONTROL.search(err),
       f"a server that {what}", f"status {status}\n{out[:500]}\n{err[:500]}")

is_equal(against((*READY, b'{"return": "\\u001b[2J"}\n'))[:2], (0, '"\\u001B[2J"\n'),
         "control characters in what is returned are escaped")
for words in (("events",), ("-E", "c"), ("-j", "c")):
    event = b'{"event": "\\u009b2J\\u001b[2J", "data": []}\n'
    reply = event + b'{"return": "\\u009b2J"}\n'
    out = against((*READY[:2], READY[2] + event) if words == ("events",) else (*READY, reply), words=words)[1]
    ok(out and not CONTROL.search(out), f"... and in lines of JSON: {' '.join(words)}", repr(out))

# Schemas and lists of jobs that are not what they should be.
for what, schema in (("no list", b"7"), ("rubbish", b'[7, null, {}, {"name": 7}, {"name": "x"}, {"name": "c", "meta-type": 7}]'),
                     ("types that are not there", b'[{"name": "c", "meta-type": "command", "arg-type": "t"}]'),
                     ("a type that is its own member", b'[{"name": "c", "meta-type": "command", "arg-type": "t"}, {"name": "t",'
                      b'"meta-type": "object", "tag": "x", "members": [{"name": "x", "type": "t"}, {"name": "y"}, 7],'
                      b'"variants": [{"case": "1", "type": "t"}, {"case": 1}]}]'),
                     ("a list of itself", b'[{"name": "c", "meta-type": "command", "arg-type": "t"},'
                      b'{"name": "t", "meta-type": "array", "element-type": "t"}]')):
    for words in (("help", "c"), ("help", "c", "x=1", "x.x.x=2"), ("c", "x=1"), ("c", "x.x.0.x=1", "y=2")):
        status, _, err = against((GREETING, DONE, b'{"return": ' + schema + b'}\n', DONE), words=words)
        ok(status in (0, 2) and err.count("\n") <= 1, f"a schema of {what}: {' '.join(words)}", f"{status} {err}")
for jobs in (b"7", b'[7, {}, {"id": 7}, {"id": "j"}, {"id": "k", "status": "concluded", "current-progress": "x"}]',
             b'[{"id": "\\u001b", "type": "backup", "status": "concluded", "current-progress": -1, "total-progress": 1e300}]'):
    status, out, err = against((*READY, *[b'{"return": ' + jobs + b'}\n'] * 3), words=("watch",), after="commands")
    ok(status == 0 and not CONTROL.search(out + err), f"jobs that are {jobs}", f"{status} {out} {err}")
done_testing()
PYTHON
