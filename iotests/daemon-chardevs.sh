#!/bin/bash
# SPDX-License-Identifier: MIT
# --chardev: telnet, a connection that is made again, ranges of ports, files, null; clients that connect and never speak hold up
# neither others nor the end. Telnet and connections that are made again are as with the peer.
. "$(dirname "$0")/lib.sh"
requires qemu-storage-daemon
any_backend

python_test <<'EOF_PYTHON'
import json
import os
import socket
import subprocess

from control import OURS, PATIENCE, PEER, Control, Daemon, contains, done_testing, is_equal, ok

IAC, WILL, WONT, DO, SB, SE, NOP = b"\xff", b"\xfb", b"\xfc", b"\xfd", b"\xfa", b"\xf0", b"\xf1"
CAPABILITIES = b'{"execute": "qmp_capabilities"}\n'


def listening():
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    server.settimeout(PATIENCE)
    return server, server.getsockname()[1]


def free_port():
    server, port = listening()
    server.close()
    return port


def filename(daemon, label):
    return [e["filename"] for e in daemon.command("query-chardev") if e["label"] == label]


# ---- telnet ----
def telnet(program):
    """What a client gets that negotiates in the middle of its commands."""
    port = free_port()
    with Daemon("--chardev", f"socket,id=t,host=127.0.0.1,port={port},server=on,wait=off,telnet=on", "--monitor", "t",
                program=program) as daemon:
        name = filename(daemon, "t")[0].replace(str(port), "PORT")
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            lines = client.makefile("rb")
            offer, greeting = lines.readline().split(b"{", 1)
            half = len(CAPABILITIES) // 2
            client.sendall(IAC + DO + b"\x03" + CAPABILITIES[:half] + IAC + WONT + b"\x01" + CAPABILITIES[half:])
            answers = [lines.readline()]
            client.sendall(IAC + WILL + b"\x00" + b'{"execute": "query-version", "id": 7}\n')
            answers.append(sorted(json.loads(lines.readline())))
            if program == OURS:
                for byte in (IAC, WILL, b"\x00", IAC, NOP, b'{"execute": "query-version", "id": 6}\n'):
                    client.sendall(byte)
                ok(json.loads(lines.readline()).get("id") == 6, "commands may come in pieces")
                client.sendall(IAC + SB + b"\x18\x00{x}" + IAC + IAC + b"{" + IAC + SE + b'{"execute": "query-status", "id": 8}\n')
                ok(json.loads(lines.readline()).get("id") == 8, "parameters of an option are no commands")
                client.sendall(b'{"execute": "' + IAC + IAC + b'"}\n{"execute": "query-version", "id": 9}\n')
                replies = [json.loads(lines.readline())]
                while replies[-1].get("id") != 9:
                    replies.append(json.loads(lines.readline()))
                ok("error" in replies[0], "a byte 255 is data, and no JSON", str(replies))
        return name, offer, b"QMP" in greeting, answers


is_equal(telnet(OURS), telnet(PEER), "telnet: the same as the peer")


# ---- a connection that is made again ----
def again(program):
    server, port = listening()
    server.close()
    heard = []
    with Daemon("--chardev", f"socket,id=r,host=127.0.0.1,port={port},reconnect=1", "--monitor", "r", program=program) as daemon:
        heard.append(daemon.command("query-named-block-nodes"))     # nobody waits for it
        server = socket.create_server(("127.0.0.1", port))
        server.settimeout(PATIENCE)
        for _ in range(2):
            client, _ = server.accept()
            with client:
                lines = client.makefile("rb")
                heard.append(b"QMP" in lines.readline())
                client.sendall(CAPABILITIES)
                heard.append(lines.readline())
                lines.close()
        server.accept()[0].close()          # at once
        client, _ = server.accept()
        heard.append(b"QMP" in client.makefile("rb").readline())
        client.close()
        server.close()
    return heard


is_equal(again(OURS), again(PEER), "reconnect: the same as the peer")
path = os.path.join(os.getcwd(), "none")
with Daemon("--chardev", f"socket,id=r,path={path},reconnect=3600", "--monitor", "r") as daemon:
    is_equal(filename(daemon, "r"), [f"unix:{path}"], "while it waits for an hour, the daemon answers, and ends")

# ---- ranges of ports ----
server, port = listening()
with Daemon("--chardev", f"socket,id=p,host=127.0.0.1,port={port},to={port + 30},server=on,wait=off", "--monitor", "p") as daemon:
    name = filename(daemon, "p")[0]
    taken = int(name.split(":")[3].split(",")[0])
    ok(port < taken <= port + 30, "to: the first free port", name)
    Control(("127.0.0.1", taken)).close()


def refused(arguments, program=OURS):
    done = subprocess.run([program, "--chardev", arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=PATIENCE, check=False)
    return done.stderr if done.returncode == 1 else f"status {done.returncode}"


contains(refused(f"socket,id=p,host=127.0.0.1,port={port},to={port},server=on,wait=off"), "in use", "a range that is taken")
for what, part in ((f"host=127.0.0.1,port={port},to={port - 1},server=on", "range"), (f"host=127.0.0.1,port=0,to={port},server=on", "range"),
                   (f"host=127.0.0.1,port=x,to={port},server=on", "numbers"), (f"host=127.0.0.1,port={port},to=70000,server=on", "65535"),
                   ("path=s,to=7,server=on", "TCP"), (f"host=127.0.0.1,port={port},to={port}", "server"),
                   ("path=s,server=on,wait=off,websocket=on", "not supported"), ("path=s,server=on,tn3270=on", "not supported"),
                   ("path=s,reconnect=5000000000", "reconnect"), ("path=s,reconnect=-1", "reconnect")):
    contains(refused("socket,id=p," + what), part, f"refused in a sentence: {what}")
ok(not os.path.exists("s"), "and nothing listened")
server.close()

# ---- files, null ----
for program in (OURS, PEER):
    with open("said", "w", encoding="ascii") as said:
        said.write("before\n")
    for append in ("off", "on"):
        with Daemon("--chardev", f"file,id=f,path=said,append={append}", "--monitor", "f", "--chardev", "null,id=n", "--monitor",
                    "n", program=program) as daemon:
            names = filename(daemon, "f") + filename(daemon, "n")
    with open("said", encoding="ascii") as said:
        lines = said.read().splitlines()
    is_equal((names, len(lines), ["QMP" in line for line in lines]), (["file", "null"], 2, [True, True]),
             f"{'peer' if program == PEER else 'ours'}: a file gets the greeting, append=on another one")
contains(refused("file,id=f,path=/nonexistent/x"), "No such file", "a file that cannot be made")

# ---- clients that connect and never speak ----
port = free_port()
with Daemon("--chardev", f"socket,id=t,host=127.0.0.1,port={port},server=on,wait=off,telnet=on", "--monitor", "t", "--chardev",
            "socket,id=u,path=u,server=on,wait=off", "--monitor", "u") as daemon:
    silent = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(20)]
    for client in silent[:10]:
        client.sendall(IAC + SB)            # an option that never ends
    for _ in range(20):
        client = socket.socket(socket.AF_UNIX)
        client.connect("u")
        client.sendall(b'{"execute": "qmp_')
        silent.append(client)
    other = Control(os.path.abspath("u"))
    is_equal(other.command("query-block-exports"), [], "others are answered")
    is_equal(daemon.command("query-block-exports"), [], "also on another chardev")
    other.close()
for client in silent:
    client.close()
done_testing()
EOF_PYTHON
