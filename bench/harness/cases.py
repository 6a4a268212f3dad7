# SPDX-License-Identifier: MIT
"""What is measured: a list of cases, each one command line that is the same for both programs (but for ours_only).

The first word says which program: img, io, ceiling, nbd (a server) or client (of it). Words in braces stand for files: {raw} the disk, {dense} its data
alone, {image} the image that the case works on, {out} a file that it makes. How cases do what both programs can do in
the same way:

* Real data gets through the filter by convert -n from {dense}, with -S 0, since the peer fails when zeroes split a
  cluster. A blkdebug node above the filter cuts requests to the size that is to be measured; each of the -m workers
  sends one of them at a time, so -m is the queue depth, and -W lets workers write at the same time.
* Scattered requests are those of bench with a large step (inputs.scattered_step): every place once, in no order that a
  cache or a read-ahead could use.
* Latencies are those that io prints for each request (-C): at depth 16 of 16 requests that are submitted together.
"""
import random
from dataclasses import dataclass

from harness.inputs import CLUSTER, COMPRESSION_TYPES, MIB, scattered_step

REQUEST = 4096
COMPRESS = "driver=compress,file.driver=qcow2,file.file.driver=file,file.file.filename={image}"
SEED = 1
LATENCIES = 2000        # in each round

# The default levels of ours and of the peer.
LEVELS = {"zlib": 1, "zstd": 3}
PEER_LEVELS = {"zlib": 6, "zstd": 3}


@dataclass(frozen=True)
class Case:
    name: str
    group: str                  # table in the report: ceilings, copies, requests, served, others
    title: str
    argv: tuple
    data_bytes: int = 0         # bytes of the disk that speed counts; 0: time alone matters
    requests: int = 0
    image: str = ""             # input that {image} is
    copied: bool = False        # {image} is a copy of it
    in_place: bool = False      # it is written to itself
    create: str = ""            # {image} is new, with these creation options
    twice: bool = False         # the second of two runs is measured
    cold: bool = False          # the page cache has nothing of {image}
    repeat: int = 1             # executions that are added up
    sides: tuple = ("ours", "peer")
    ours_only: tuple = ()       # options that the peer has not, for what it does without
    latency_argv: tuple = ()
    server: tuple = ()          # command line of a server, of which argv is the client: harness/served.py
    beside: tuple = ()          # cases that it is compared with: measured once more just before each of its runs


def all_cases(inputs):
    parts = ceilings, conversions, fills, requests, engines, served, others
    return [case for part in parts for case in part(inputs)]


# ---- codecs ----

OUR_CODEC = {"zlib": "libdeflate", "zstd": "zstd-checksum"}


def ceiling_of(codec, operation="compress", level=None):
    """The one of 64 KiB on 2 threads, by which ours is judged; level: ours by default."""
    return ceiling_name(operation, OUR_CODEC[codec], LEVELS[codec] if level is None else level, CLUSTER, 2)


def ceiling_name(operation, codec, level, cluster, threads):
    size = "2m" if cluster == 2 * MIB else "64k"
    return f"ceiling-{operation}-{codec}-{level}-{size}-{threads}t"


def ceilings(inputs):
    cases = []
    for operation, codec, level, cluster in [
            *(("compress", "libdeflate", level, CLUSTER) for level in (1, 2, 6)),
            ("compress", "zlib", 6, CLUSTER),
            *(("compress", codec, level, CLUSTER) for codec in ("zstd", "zstd-checksum") for level in (1, 3)),
            ("decompress", "libdeflate", LEVELS["zlib"], CLUSTER), ("decompress", "zlib", 6, CLUSTER),
            ("decompress", "zstd", 3, CLUSTER), ("decompress", "zstd-checksum", 3, CLUSTER),
            ("compress", "libdeflate", LEVELS["zlib"], 2 * MIB), ("compress", "zstd-checksum", 3, 2 * MIB)]:
        for threads in (1, 2):
            cases.append(Case(
                ceiling_name(operation, codec, level, cluster, threads), "ceilings",
                f"{operation} {codec} {level}, {cluster // 1024} KiB blocks, {threads} thread{'s' * (threads > 1)}",
                ("ceiling", operation, codec, str(level), str(cluster), str(threads), "{raw}"),
                inputs.data_bytes[cluster], sides=("codec",)))
    return cases


# ---- copies ----

def convert_ceilings(codec, cluster, suffix):
    """Of those that something is required of."""
    level = PEER_LEVELS[codec] if suffix else LEVELS[codec]
    return (ceiling_of(codec, level=level),) if cluster == CLUSTER and bool(suffix) == (codec == "zstd") else ()


def conversions(inputs):
    cases = []
    for cluster in (CLUSTER, 2 * MIB):
        size = "2m" if cluster == 2 * MIB else "64k"
        for codec in COMPRESSION_TYPES:
            for suffix, level in ("", ()), ("-peer-level", ("--level", str(PEER_LEVELS[codec]))):
                cases.append(Case(
                    f"convert-{codec}-{size}{suffix}", "copies",
                    f"convert -c, {codec}, {suffix[1:].replace('-', ' ') or 'default level'}, clusters of {size}",
                    ("img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o",
                     f"compression_type={codec},cluster_size={size}", "{raw}", "{out}"),
                    inputs.data_bytes[cluster], ours_only=level, beside=convert_ceilings(codec, cluster, suffix)))
    for codec in COMPRESSION_TYPES:
        cases.append(Case(
            f"to-raw-{codec}", "copies", f"convert a {codec} image to raw",
            ("img", "convert", "-f", "qcow2", "-O", "raw", "{image}", "{out}"), inputs.dense_bytes,
            image=f"{codec}.qcow2"))
    return cases


def fill(inputs, name, title, codec, request, depth, cache=(), **more):
    cut = f"driver=blkdebug,max-transfer={request}," + ",".join("image." + o for o in COMPRESS.split(","))
    return Case(name, "copies", title,
                ("img", "convert", "-n", "-S", "0", "-W", "-m", str(depth), *cache, "-f", "raw", "--target-image-opts",
                 "{dense}", cut),
                inputs.dense_bytes, create=f"compression_type={codec}", **more)


def fills(inputs):
    cases = []
    for codec in COMPRESSION_TYPES:
        for depth in (1, 16):
            cases.append(fill(inputs, f"fill-{codec}-qd{depth}",
                              f"fill through the filter, {codec}, 64 KiB, depth {depth}", codec, "64k", depth,
                              beside=(ceiling_of(codec),) if depth == 1 else ()))
        cases += [
            fill(inputs, f"fill-{codec}-qd16-direct", f"fill through the filter, {codec}, 64 KiB, depth 16, -t none",
                 codec, "64k", 16, ("-t", "none"), beside=(f"fill-{codec}-qd16",)),
            fill(inputs, f"rewrite-{codec}-qd16", f"rewrite through the filter, {codec}, 64 KiB, depth 16", codec,
                 "64k", 16, twice=True),
            fill(inputs, f"fill-4k-{codec}-qd1", f"fill through the filter, {codec}, 4 KiB, depth 1", codec, "4k", 1),
        ]
    return cases


# ---- requests of 4 KiB ----

def request_count(inputs, write, disk, through, options):
    """So many that a run takes some seconds."""
    whole_clusters = write and (through or disk != "plain")
    count = 8192 if whole_clusters else 16384 if "none" in options else 131072 if disk == "plain" else 32768
    return max(int(count * inputs.size.requests), 64)


def request_case(inputs, operation, order, disk, through, depth, options=(), suffix="", cold=False):
    write = operation == "write"
    count = request_count(inputs, write, disk, through, options)
    target = ("--image-opts", COMPRESS) if through else ("-f", "qcow2", "{image}")
    judged_by_codec = write and through and depth == 16 and order == "random" and disk != "plain"
    step = scattered_step(inputs.dense_bytes, REQUEST) if order == "random" else REQUEST
    name = f"{operation}-{order}-{disk}{'-filter' * through}-qd{depth}{suffix}"
    title = ", ".join([f"4 KiB {order} {operation}", disk, *["filter"] * through, f"depth {depth}", *["cold"] * cold,
                       *[" ".join(options)] * bool(options)])
    in_place = write and disk == "plain" and not through
    return Case(
        name, "requests", title,
        ("img", "bench", *(("-w", "--pattern=90") if write else ()), *options, "-d", str(depth), "-s", str(REQUEST),
         "-S", str(step), "-c", str(count), *target),
        count * REQUEST, count, image="scratch.qcow2" if in_place else f"{disk}.qcow2", copied=write and not in_place,
        in_place=in_place, cold=cold,
        beside=(ceiling_of(disk, "decompress"), ceiling_of(disk)) if judged_by_codec else (),
        latency_argv=("io", *options, *io_commands(inputs, operation, order, depth, min(count, LATENCIES)), *target))


def io_commands(inputs, operation, order, depth, count):
    generator = random.Random(SEED)
    places = inputs.dense_bytes // REQUEST
    pattern = " -P 90" if operation == "write" else ""
    for number in range(count):
        offset = (generator.randrange(places) if order == "random" else number % places) * REQUEST
        yield from ("-c", f"{'aio_' * (depth > 1)}{operation} -C{pattern} {offset} {REQUEST}")
        if depth > 1 and (number + 1) % depth == 0:
            yield from ("-c", "aio_flush")


def requests(inputs):
    """The matrix; with zlib only what a requirement needs."""
    cases = []
    for operation in ("read", "write"):
        for order in ("random", "sequential"):
            for disk in ("zstd", "zlib", "plain"):
                for through in (False, True):
                    for depth in (1, 16):
                        if disk == "zlib" and (through or (operation, order, depth) not in (
                                ("read", "sequential", 1), ("read", "random", 16))):
                            continue
                        cases.append(request_case(inputs, operation, order, disk, through, depth))
    cases += [request_case(inputs, "write", "random", "zlib", True, 16),
              *(request_case(inputs, "read", "random", codec, False, 16, suffix="-cold", cold=True)
                for codec in COMPRESSION_TYPES)]
    return cases


ENGINES = {"uring": ("-i", "io_uring"), "direct": ("-t", "none"), "direct-native": ("-t", "none", "-i", "native"),
           "direct-uring": ("-t", "none", "-i", "io_uring")}


def engines(inputs):
    return [request_case(inputs, operation, "random", "plain", False, depth, options, f"-{engine}")
            for operation in ("read", "write") for depth in (1, 16) for engine, options in ENGINES.items()]


# ---- over NBD ----

def served_case(inputs, operation, order, disk, request, depth, connections=1):
    """Writes to a compressed disk go through the filter; a new one, since the peer can write each cluster once."""
    write, compressed = operation == "write", disk != "plain"
    small = request == REQUEST
    count = (8192 if small else 2048) * (4 if depth * connections > 1 and small else 1)
    count = max(int(count * inputs.size.requests), 64)
    if compressed and write:
        count = min(count, inputs.dense_bytes // request)
    target = ("--image-opts", COMPRESS) if compressed and write else ("-f", "qcow2", "{image}")
    size = "4k" if small else "64k"
    kind = f"served-{operation}-{order}-{size}-{disk}"
    name = f"{kind}-qd{depth}{f'-{connections}conns' if connections > 1 else ''}"
    title = f"{size[:-1]} KiB {order} {operation}, {disk}, depth {depth}" + (
        f", {connections} connections" if connections > 1 else "")
    image = {} if compressed and write else {"image": "scratch.qcow2" if write else f"{disk}.qcow2"}
    return Case(
        name, "served", title,
        ("client", *(["--write"] if write else []), *(["--seq"] if order == "sequential" else []), "--bs", str(request),
         "--depth", str(depth), "--connections", str(connections), "--count", str(count), "--data", "text",
         "nbd+unix:///?socket={socket}"),
        count * request, count, beside=(f"{kind}-qd16",) if connections > 1 else (),
        server=("nbd", "-t", "-e", "0", "-k", "{socket}", *target), in_place=write and not compressed,
        create=f"compression_type={disk}" if compressed and write else "", **image)


def served(inputs):
    cases = [served_case(inputs, operation, "random", "plain", REQUEST, depth)
             for operation in ("read", "write") for depth in (1, 16)]
    cases += [served_case(inputs, "read", "sequential", codec, REQUEST, 1) for codec in COMPRESSION_TYPES]
    cases += [served_case(inputs, operation, "sequential", disk, CLUSTER, depth)
              for operation in ("read", "write") for disk in ("plain", *COMPRESSION_TYPES) for depth in (1, 16)]
    cases += [served_case(inputs, operation, "random", "plain", REQUEST, depth, 16)
              for operation in ("read", "write") for depth in (1, 16)]
    return cases


# ---- the rest ----

def others(inputs):
    size = inputs.size
    return [
        Case("open-huge", "others",
             f"open an image of {size.huge_bytes >> 40} TiB with {size.huge_pieces} MiB of data, read 4 KiB; ten times",
             ("io", "-f", "qcow2", "-c", "read 0 4k", "{image}"), image="huge.qcow2", repeat=10),
        Case("check-clusters", "others", f"check an image with {size.clusters} clusters",
             ("img", "check", "-f", "qcow2", "{image}"), image="clusters.qcow2"),
    ]
