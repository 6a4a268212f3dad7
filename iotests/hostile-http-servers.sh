#!/bin/bash
# SPDX-License-Identifier: MIT
# Web servers that lie, change the file, break off, fall silent or never end: one clear error each, no crash, no hang,
# and never data of two versions; what fails for a time is tried again, as often as the options say.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/http-lib.inc"
requires_http python3

random_file data.raw 256k
python3 "$BLKSTACK_SOURCE/iotests/http_bad_server.py" data.raw port 2>server.err &
http_pids+=($!)
for _ in {1..200}; do [ -s port ] || sleep 0.02; done
web=http://127.0.0.1:$(cat port)

# Reads in pieces: of 64 KiB when the file is opened, then what the command needs.
opts() {        # FAULT [OPTIONS]
    web_opts "$web/$1/1" "file.readahead=64k,file.timeout=${patience-1},file.retries=${retries-0}${2:+,$2}"
}

# The command fails, in few words that can be shown on a terminal.
refused() {     # DESCRIPTION REGEX COMMAND...
    fails "$1" "$2" timeout 20 "${@:3}"
    num_ok "$(wc -l <cmd.out) <= 3 && $(wc -c <cmd.out) < 2000" "$1: in few words"
    is "$(LC_ALL=C tr -d '\n\040-\176\200-\377' <cmd.out | wc -c)" 0 "$1: that can be printed"
}

at_open() {     # FAULT REGEX
    refused "$1" "$2" "$BLKSTACK_IMG" info --image-opts "$(opts "$1")"
}

later() {       # FAULT REGEX: it opens, and cannot be copied
    succeeds "$1: it opens" timeout 20 "$BLKSTACK_IMG" info --image-opts "$(web_opts "$web/$1/2" file.readahead=64k)"
    rm -f out.raw
    refused "$1" "$2" "$BLKSTACK_IMG" convert --image-opts -O raw "$(opts "$1")" out.raw
}

copies() {      # FAULT [OPTIONS]
    succeeds "$1: convert" timeout 20 "$BLKSTACK_IMG" convert --image-opts -O raw "$(patience=10 opts "$@")" out.raw
    succeeds "$1: the same bytes" cmp out.raw data.raw
}

requests() {    # FAULT: how many there were
    python3 -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())' "$web/$1/1/count"
}

copies good
copies if-range-time

label="at once"
at_open vanish "Empty reply|reset"
at_open rubbish "HTTP/0.9|version|[Ww]eird|[Uu]nsupported"
at_open binary "HTTP/0.9|version|[Ww]eird|[Uu]nsupported"
at_open endless-head "heads of the server's answer have no end"
at_open endless-line "."
at_open endless-continue "heads of the server's answer have no end"
at_open endless-body "more than was asked for"
at_open silent "silent for 1 seconds|too slow|timed out"
at_open silent-in-body "silent for 1 seconds"
at_open whole "sends the whole file where a range of it is asked for"
at_open no-range "does not say which range"
at_open multipart "does not say which range"
at_open no-total "does not say how long the file is"
at_open huge-total "does not say how long the file is"
at_open negative "does not say how long the file is"
at_open elsewhere "sends bytes 1 to 65535 of the file, but 0 to 65535 were asked for"
at_open further "were asked for"
at_open less "were asked for"
at_open backwards "were asked for"
at_open longer "more than was asked for"
at_open shorter "ends early"
at_open encoded "encodes the file although nobody asked"
at_open says-none "use force-range=on"
copies says-none file.force-range=on
at_open empty "is it empty"
at_open escape "no such file"

label="a file that changes"
for fault in changed-etag changed-weak-etag lost-etag changed-time changed-length changed-whole shrunk; do
    later "$fault" "has changed while it was open"
done
retries=4 at_open cut-and-changed "has changed while it was open"

label="for a time"
for status in 408 429 500 502 503 504; do
    at_open "$status" "in trouble \(HTTP status $status\)"
    is "$(requests "$status")" 1 "$status: asked once"
done
retries=2 at_open 503 "in trouble \(HTTP status 503\)"
is "$(requests 503)" 4 "asked again as often as the options say"
retries=1 at_open vanish "Empty reply|reset"
retries=2 copies 503-twice
is "$(requests 503-twice)" 4 "503 twice, then all of it"
retries=1 copies cut
is "$(requests cut)" 4 "each of two answers is cut off once, and the rest asked for"
done_testing
