#!/bin/bash
# SPDX-License-Identifier: MIT
# Memory of check: 64 TiB of sparse disk and a million clusters need little; an image whose clusters are scattered so widely
# that the counters do not fit is looked at, and repaired, in several windows.
# timeout: 300
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io python3
if [ "${BLKSTACK_SANITIZE:-0}" = 1 ]; then
    skip_all "a sanitizer needs memory of its own"
fi

# MiB of memory at most; the status is that of the command.
within() {      # MIB STATUS TEXT COMMAND...
    local mib=$1 want=$2 text=$3 got status=0

    shift 3
    got=$(python3 -c '
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(status)' "$@") || status=$?
    is "$status" "$want" "$text: exit status"
    num_ok "$got <= mib" "$text: $got MiB, at most $mib"
}

qimg create -q -f qcow2 sparse.qcow2 64T
for ((tib = 1; tib < 64; tib += 7)); do
    echo "write -P $tib ${tib}T 128k"
done | qio -f qcow2 sparse.qcow2 >/dev/null
within 64 0 "64 TiB" "$BLKSTACK_IMG" check sparse.qcow2
python3 -c '
import struct
f = open("sparse.qcow2", "r+b")
f.seek(48)
table = struct.unpack(">Q", f.read(8))[0]
f.seek(table)
f.write(bytes(8))'
within 64 0 "64 TiB, its refcounts lost" "$BLKSTACK_IMG" check -r all sparse.qcow2
judge sparse.qcow2 "64 TiB, repaired"

qimg create -q -f qcow2 -o cluster_size=512,preallocation=metadata million.qcow2 500000K
num_ok "$(check_number million.qcow2 allocated-clusters) >= 1000000" "a million clusters"
within 64 0 "a million clusters" "$BLKSTACK_IMG" check million.qcow2

# One cluster of data in every 512 of the file, for 70,000 of them: a counter for each takes more than there is room for.
python3 - <<'END'
import struct
count, cluster = 70000, 512
tables = (count + 63) // 64
l1_clusters = (tables * 8 + 511) // 512
l1, l2 = 2, 2 + l1_clusters
place = lambda i: (i + 8) * 512 * cluster
with open('wide.qcow2', 'wb') as f:
    f.write(struct.pack('>IIQIIQIIQQIIQ', 0x514649fb, 2, 0, 0, 9, count * cluster, 0, tables, l1 * cluster, cluster, 1, 0, 0))
    f.seek(l1 * cluster)
    f.write(struct.pack('>%dQ' % tables, *(1 << 63 | (l2 + i) * cluster for i in range(tables))))
    f.seek(l2 * cluster)
    f.write(struct.pack('>%dQ' % count, *(1 << 63 | place(i) for i in range(count))))
    for i in (0, count // 2, count - 1):
        f.seek(place(i))
        f.write(bytes([i % 250 + 1]) * cluster)
    f.truncate(place(count - 1) + cluster)
END
within 220 2 "scattered clusters" "$BLKSTACK_IMG" check wide.qcow2
within 220 0 "scattered clusters, repaired" "$BLKSTACK_IMG" check -r all wide.qcow2
judge wide.qcow2 "scattered clusters, repaired"
peer_io wide.qcow2 qcow2 "read -P 1 0 512" "read -P 1 17920000 512" "read -P 250 35839488 512" "read -P 0 512 64k"
done_testing
