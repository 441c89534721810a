#!/usr/bin/env python3
"""What a mounted store costs beside the same calls in process: latencies, batches, many clients, plain reads.

    mounted.py --programs DIR [--peers PROGRAM] [--data DATA] [--store FILE] [--reference RVF] [--rounds N]

DIR holds rvf and rvf-mount, built for release. PROGRAM is the peers bench; with it the in-process figures are measured in
the same run:
    cargo build --release
    cargo bench -p rvf-tests --bench peers --no-run       prints PROGRAM
DATA defaults to the shipped sample; FILE is an indexed store of it, made when left out. RVF is the reference's program.
Client and daemon share one CPU unless a line says otherwise. Medians, Markdown. Needs FUSE and NumPy.
"""
import argparse
import fcntl
import multiprocessing
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
K = 10
CPUS = sorted(os.sched_getaffinity(0))


def row(*cells):
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def table(title, *head):
    print(f"\n### {title}\n")
    row(*head)
    row(*["---"] + ["---:"] * (len(head) - 1))


def median_us(work, times):
    for at in range(min(50, times)):
        work(at)
    figures = []
    for at in range(times):
        begin = time.perf_counter_ns()
        work(at)
        figures.append(time.perf_counter_ns() - begin)
    return statistics.median(figures) / 1e3


def npy(array):
    import io
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


class Mount:
    """A store, mounted with the daemon on some CPUs."""

    def __init__(self, args, source, cpus, *options):
        self.dir = tempfile.mkdtemp(prefix="rvf-mounted.")
        program = os.path.join(args.programs, "rvf-mount")
        begin = time.perf_counter()
        self.daemon = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, cpus)), program, "--foreground", *options, source, self.dir],
            stderr=subprocess.DEVNULL)
        while not os.path.ismount(self.dir):
            if self.daemon.poll() is not None:
                raise SystemExit(f"rvf-mount ended with {self.daemon.returncode}")
        self.ready = time.perf_counter() - begin

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def status(self, key):
        with open(f"/proc/{self.daemon.pid}/status") as text:
            return int(re.search(rf"^{key}:\s+(\d+)", text.read(), re.M)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # After an error something may still be open.
        if subprocess.run(["umount", self.dir], check=False).returncode != 0:
            subprocess.run(["umount", "-l", self.dir], check=False)
        try:
            self.daemon.wait(20)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
        os.rmdir(self.dir)


def in_process(args):
    """Microseconds a call on one CPU, and queries a second of a batch of 1,000 on two threads."""
    if not args.peers:
        return None, None
    text = subprocess.run([args.peers, args.data, "--store", args.store, "--only", "call"], check=True,
                          capture_output=True, text=True).stdout
    return (float(re.search(rf"{key}=([\d.]+)", text)[1]) for key in ("call_us", "batch_qps"))


def over(value, base):
    return "" if base is None else f"{value - base:+.1f}"


def request_of(query, k=K):
    size = 24 + max(4 * len(query), 12 * k)
    head = struct.pack("<IIIIII", 1, k, 0, len(query), 0, 0)
    return (3 << 30) | (size << 16) | (ord("R") << 8) | 1, (head + query.tobytes()).ljust(size, b"\0")


def latencies(args, queries, call_us):
    raw = [q.tobytes() for q in queries]
    text = [(",".join(map(repr, q.tolist())) + "\n").encode() for q in queries]
    n = len(raw)
    os.sched_setaffinity(0, CPUS[-1:])
    table(f"One query through the mount, client and daemon on one CPU (medians of {args.times})",
          "how", "microseconds", "over in process")
    if call_us is not None:
        row("in process, one call", f"{call_us:.1f}", "")
    with Mount(args, args.store, CPUS[-1:]) as mount:
        kept = os.open(mount.path("query", "in"), os.O_RDWR)

        def transaction(at, form=raw):
            os.pwrite(kept, form[at % n], 0)
            return os.pread(kept, 65536, 0)

        def by_ioctl(at):
            number, message = messages[at % n]
            answer = bytearray(message)
            fcntl.ioctl(kept, number, answer)
            return answer

        def by_opens(at):
            with open(mount.path("query", "in"), "wb", buffering=0) as file:
                file.write(raw[at % n])
            with open(mount.path("query", "out"), "rb", buffering=0) as file:
                return file.read(65536)

        messages = [request_of(q) for q in queries]
        first = [int(line.split(b"\t")[0]) for line in transaction(0).splitlines() if line]
        count, = struct.unpack_from("<I", by_ioctl(0))
        ids = list(struct.unpack_from(f"<{count}Q", by_ioctl(0), 24))
        assert ids == first == [int(l.split(b"\t")[0]) for l in by_opens(0).splitlines() if l], "answers differ"
        for name, work in [("transaction on a kept descriptor, binary", transaction),
                           ("transaction on a kept descriptor, text", lambda at: transaction(at, text)),
                           ("ioctl", by_ioctl), ("in and out by separate opens", by_opens)]:
            value = median_us(work, args.times)
            row(name, f"{value:.1f}", over(value, call_us))
        os.close(kept)
        for name, work in [("stat status", lambda _: os.stat(mount.path("status"))),
                           ("cat status", lambda _: open(mount.path("status")).read()),
                           ("ls of the top", lambda _: os.listdir(mount.path()))]:
            row(name, f"{median_us(work, args.times):.1f}", "")
        for at in range(10_000):
            os.stat(mount.path("query"))
            if at % 10 == 0:
                by_opens(at)
        print(f"\nDaemon after {args.times * 4 + 1000} queries: RssAnon {mount.status('RssAnon')} KiB, "
              f"RssFile {mount.status('RssFile')} KiB (file-backed, shared with the page cache).")
    os.sched_setaffinity(0, CPUS)


def client(path, raw, seconds, cpu, out):
    os.sched_setaffinity(0, cpu)
    kept = os.open(path, os.O_RDWR)
    done, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        os.pwrite(kept, raw[done % len(raw)], 0)
        os.pread(kept, 65536, 0)
        done += 1
    out.put(done / seconds)


def throughput(args, queries, batch_qps):
    table("Throughput, all CPUs", "what", "queries a second", "x in process")
    if batch_qps is not None:
        row("in process, batches of 1,000, 2 threads", f"{batch_qps:.0f}", "1.00")
    batch = npy(np.resize(queries, (1000, queries.shape[1])))
    with Mount(args, args.store, CPUS) as mount:
        figures = []
        for _ in range(args.rounds * 3):
            begin = time.perf_counter()
            with open(mount.path("query", "in"), "wb", buffering=0) as file:
                file.write(batch)
            ids = np.load(mount.path("query", "out.ids.npy"))
            figures.append(1000 / (time.perf_counter() - begin))
            assert ids.shape == (1000, K)
        value = statistics.median(figures)
        row("a .npy of 1,000 queries through query/in", f"{value:.0f}", f"{value / batch_qps:.2f}" if batch_qps else "")
        raw = [q.tobytes() for q in queries]
        base = None
        for clients in (1, 2, 4, 8):
            out = multiprocessing.Queue()
            all_of_them = [multiprocessing.Process(target=client, args=(mount.path("query", "in"), raw, 2.0, CPUS, out))
                           for _ in range(clients)]
            for one in all_of_them:
                one.start()
            value = sum(out.get() for _ in all_of_them)
            for one in all_of_them:
                one.join()
            base = base or value
            row(f"{clients} clients, transactions ({value / base:.2f} x one client)", f"{value:.0f}", "")


def read_all(path):
    begin, total = time.perf_counter(), 0
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            total += len(chunk)
    return total / (time.perf_counter() - begin) / 1e6


def reads(args):
    table("Reading, MB/s (page cache warm for the native file)", "what", "MB/s", "x native")
    read_all(args.store)
    native = statistics.median(read_all(args.store) for _ in range(args.rounds))
    row("native sequential read", f"{native:.0f}", "1.00")
    with Mount(args, args.store, CPUS) as mount:
        largest = max((os.path.join(mount.path("segments"), s, "payload") for s in os.listdir(mount.path("segments"))
                       if os.path.exists(os.path.join(mount.path("segments"), s, "payload"))), key=os.path.getsize)
        for name, path in [("file.rvf", mount.path("file.rvf")), ("largest segments/*/payload", largest),
                           ("vectors.npy", mount.path("vectors.npy"))]:
            first = read_all(path)
            second = statistics.median(read_all(path) for _ in range(args.rounds))
            row(f"{name}, first read", f"{first:.0f}", f"{first / native:.2f}")
            row(f"{name}, read again", f"{second:.0f}", f"{second / native:.2f}")
        begin = time.perf_counter()
        listed = sum(1 for entry in os.scandir(mount.path("vectors")) if entry.stat())
        print(f"\nls -l of {listed} entries in vectors/: {time.perf_counter() - begin:.2f} s.")


def starting(args, queries):
    table("Starting (medians, page cache warm)", "what", "ms")
    ready, first = [], []
    for _ in range(args.rounds):
        with Mount(args, args.store, CPUS) as mount:
            ready.append(mount.ready * 1e3)
            begin = time.perf_counter()
            kept = os.open(mount.path("query", "in"), os.O_RDWR)
            os.pwrite(kept, queries[0].tobytes(), 0)
            assert os.pread(kept, 65536, 0)
            first.append((time.perf_counter() - begin) * 1e3)
            os.close(kept)
    row("mount ready", f"{statistics.median(ready):.1f}")
    row("first answer after that", f"{statistics.median(first):.2f}")


def today(args, queries):
    table("What users do today", "what", "ms a query (median)")
    vector = ",".join(map(str, queries[0].tolist()))
    programs = [("rvf query, ours", os.path.join(args.programs, "rvf"))]
    if args.reference:
        programs.append(("rvf query, the reference", args.reference))
    for name, program in programs:
        command = [program, "query", args.store, f"--vector={vector}", "--json"]
        value = median_us(lambda _: subprocess.run(command, check=True, capture_output=True), 15) / 1e3
        row(name, f"{value:.1f}")
    try:
        import lancedb
    except ImportError:
        print("\nLanceDB is not installed; left out.")
        return
    with tempfile.TemporaryDirectory() as place:
        base = np.load(os.path.join(args.data, "base.f16.npy")).astype(np.float32)
        made = lancedb.connect(place).create_table("t", [{"id": i, "vector": v} for i, v in enumerate(base)])
        made.create_index(metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1)
        value = median_us(lambda at: made.search(queries[at % len(queries)]).limit(K).to_arrow(), 100) / 1e3
        row("LanceDB, IVF_HNSW_SQ, table kept open", f"{value:.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True)
    parser.add_argument("--peers")
    parser.add_argument("--data", default=os.path.join(HERE, "../data/debian-packages"))
    parser.add_argument("--store")
    parser.add_argument("--reference")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, default=3000)
    parser.add_argument("--only", help="latency,throughput,reads,start,today")
    args = parser.parse_args()
    queries = np.ascontiguousarray(np.load(os.path.join(args.data, "queries.f32.npy")), dtype=np.float32)
    place = tempfile.mkdtemp(prefix="rvf-mounted-store.")
    try:
        if not args.store:
            args.store = os.path.join(place, "bench.rvf")
            rvf = os.path.join(args.programs, "rvf")
            base = os.path.join(args.data, "base.f16.npy")
            ids = os.path.join(args.data, "ids.u64.npy")
            dimension = str(queries.shape[1])
            for command in (["create", args.store, "--dimension", dimension, "--metric", "cosine"],
                            ["ingest", args.store, "-i", base, "--ids", ids, "--index"]):
                subprocess.run([rvf, *command], check=True, stdout=subprocess.DEVNULL)
        parts = args.only.split(",") if args.only else ["latency", "throughput", "reads", "start", "today"]
        call_us, batch_qps = in_process(args) if {"latency", "throughput"} & set(parts) else (None, None)
        if "latency" in parts:
            latencies(args, queries, call_us)
        if "throughput" in parts:
            throughput(args, queries, batch_qps)
        if "reads" in parts:
            reads(args)
        if "start" in parts:
            starting(args, queries)
        if "today" in parts:
            today(args, queries)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    sys.exit(main())
