#!/usr/bin/env python3
"""What a query costs with what users have today, beside ours, in one run: milliseconds a query and recall.

    rivals.py --programs DIR [--data DATA] [--store FILE] [--reference RVF] [--postgres URL] [--rounds N] [--only A,B]

DIR holds rvf and rvf-mount, built for release (cargo build --release). DATA defaults to the shipped sample; FILE is an
indexed store of it, made when left out. RVF is the program of the existing implementation (rvf-cli 0.3). The others are
left out, with a word, when their packages are missing:
    python3 -m pip install numpy lancedb 'psycopg[binary]' pgserver
pgserver brings a PostgreSQL with pgvector; --postgres names a server of your own instead, where the extension is
installed. All indexes: HNSW, M 16, ef_construction 200, cosine; every engine searches with its default width. One query
at a time, engines take turns, round by round; medians over all rounds. Needs FUSE. Prints Markdown.
"""
import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
K = 10


def log(text):
    print(text, file=sys.stderr, flush=True)


class Mounted:
    """A mounted store; asked through one kept descriptor, or by opening two files a query."""

    def __init__(self, args, kept):
        self.name = "rvf-mount, transaction on a kept descriptor" if kept else "rvf-mount, `in` and `out` by separate opens"
        self.dir = tempfile.mkdtemp(prefix="rvf-rivals.")
        subprocess.run([os.path.join(args.programs, "rvf-mount"), args.store, self.dir], check=True, timeout=60)
        self.input, self.output = os.path.join(self.dir, "query", "in"), os.path.join(self.dir, "query", "out")
        self.kept = os.open(self.input, os.O_RDWR) if kept else None

    def ask(self, query):
        if self.kept is not None:
            os.pwrite(self.kept, query.tobytes(), 0)
            text = os.pread(self.kept, 4096, 0)
        else:
            with open(self.input, "wb", buffering=0) as file:
                file.write(query.tobytes())
            with open(self.output, "rb", buffering=0) as file:
                text = file.read(4096)
        return [int(line.split(b"\t")[0]) for line in text.splitlines()]

    def close(self):
        if self.kept is not None:
            os.close(self.kept)
        subprocess.run(["umount", self.dir], check=True, timeout=60)
        os.rmdir(self.dir)


class Program:
    """`rvf query`: a process a query. Both programs take the same flags."""

    def __init__(self, args, name, program):
        self.name, self.program, self.store = name, program, args.store
        self.turn = 2

    def ask(self, query):
        import json
        vector = ",".join(map(str, query.tolist()))
        text = subprocess.run([self.program, "query", self.store, f"--vector={vector}", "-k", str(K), "--json"],
                              check=True, capture_output=True, timeout=60).stdout
        found = json.loads(text)
        return [hit["id"] for hit in (found["results"] if isinstance(found, dict) else found)]

    def close(self):
        pass


class Postgres:
    name = "pgvector, prepared statement over its socket"

    def __init__(self, args, base, ids, queries):
        import psycopg
        self.server = self.place = None
        url = args.postgres
        if not url:
            import pgserver
            # The server gives up root, so its directory must be one that others can reach.
            self.place = tempfile.mkdtemp(prefix="rvf-postgres.", dir="/tmp")
            os.chmod(self.place, 0o755)
            self.server = pgserver.get_server(os.path.join(self.place, "data"))
            url = self.server.get_uri()
        self.connection = psycopg.connect(url, autocommit=True, prepare_threshold=0)
        self.cursor = self.connection.cursor()
        run = self.cursor.execute
        run("CREATE EXTENSION IF NOT EXISTS vector")
        run("DROP TABLE IF EXISTS rvf_rivals")
        run(f"CREATE TABLE rvf_rivals (id bigint, v vector({base.shape[1]}))")
        with self.cursor.copy("COPY rvf_rivals FROM STDIN") as copy:
            for number, vector in zip(ids.tolist(), base):
                copy.write_row((number, self.text(vector)))
        run("SET maintenance_work_mem = '1GB'")
        run("CREATE INDEX ON rvf_rivals USING hnsw (v vector_cosine_ops) WITH (m = 16, ef_construction = 200)")
        run("ANALYZE rvf_rivals")
        version = run("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()[0]
        self.name += f" (PostgreSQL {self.connection.info.server_version // 10000}, pgvector {version})"

    @staticmethod
    def text(vector):
        return "[" + ",".join(map(str, vector.tolist())) + "]"

    def ask(self, query):
        self.cursor.execute(f"SELECT id FROM rvf_rivals ORDER BY v <=> %s::vector LIMIT {K}", (self.text(query),))
        return [row[0] for row in self.cursor.fetchall()]

    def close(self):
        self.cursor.execute("DROP TABLE rvf_rivals")
        self.connection.close()
        if self.server:
            self.server.cleanup()
            shutil.rmtree(self.place, ignore_errors=True)


class Lance:
    name = "LanceDB, IVF_HNSW_SQ of one partition, table kept open"

    def __init__(self, base, ids):
        import lancedb
        import pyarrow
        self.place = tempfile.mkdtemp(prefix="rvf-lance.")
        vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(base.ravel()), base.shape[1])
        table = pyarrow.table({"id": pyarrow.array(ids.astype(np.int64)), "vector": vectors})
        self.table = lancedb.connect(self.place).create_table("t", table)
        self.table.create_index(metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1, m=16, ef_construction=200)
        self.name += f" ({lancedb.__version__})"

    def ask(self, query):
        found = self.table.search(query).distance_type("cosine").select(["id", "_distance"]).limit(K).to_arrow()
        return found["id"].to_pylist()

    def close(self):
        shutil.rmtree(self.place)


def make_store(args, place):
    if args.store:
        return
    args.store = os.path.join(place, "bench.rvf")
    rvf = os.path.join(args.programs, "rvf")
    base, ids = (os.path.join(args.data, name) for name in ("base.f16.npy", "ids.u64.npy"))
    dimension = str(np.load(base, mmap_mode="r").shape[1])
    for command in (["create", args.store, "--dimension", dimension, "--metric", "cosine"],
                    ["ingest", args.store, "-i", base, "--ids", ids, "--index"]):
        subprocess.run([rvf, *command], check=True, stdout=subprocess.DEVNULL)


def engines(args, base, ids, queries):
    makers = {
        "transaction": lambda: Mounted(args, True),
        "opens": lambda: Mounted(args, False),
        "rvf": lambda: Program(args, "`rvf query`, ours", os.path.join(args.programs, "rvf")),
        "postgres": lambda: Postgres(args, base, ids, queries),
        "lance": lambda: Lance(base, ids),
    }
    if args.reference:
        makers["reference"] = lambda: Program(args, "`rvf query` of rvf-cli 0.3", args.reference)
    for key, make in makers.items():
        if args.only and key not in args.only.split(","):
            continue
        log(f"preparing {key} ...")
        try:
            yield make()
        except ImportError as error:
            log(f"{key} is left out: {error}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True)
    parser.add_argument("--data", default=os.path.join(HERE, "../data/debian-packages"))
    parser.add_argument("--store")
    parser.add_argument("--reference")
    parser.add_argument("--postgres")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", help="transaction,opens,rvf,reference,postgres,lance")
    args = parser.parse_args()
    load = lambda name: np.load(os.path.join(args.data, name))
    base = np.ascontiguousarray(load("base.f16.npy"), dtype=np.float32)
    ids, truth = load("ids.u64.npy"), load("gt_cosine.u64.npy")[:, :K]
    queries = np.ascontiguousarray(load("queries.f32.npy"), dtype=np.float32)
    place = tempfile.mkdtemp(prefix="rvf-rivals-store.")
    running = []
    try:
        make_store(args, place)
        for engine in engines(args, base, ids, queries):
            running.append((engine, [], []))
        at = 0
        for turn in range(args.rounds + 1):
            for engine, times, hits in running:
                for step in range(getattr(engine, "turn", 30)):
                    number = (at + step) % len(queries)
                    begin = time.perf_counter_ns()
                    found = engine.ask(queries[number])
                    took = time.perf_counter_ns() - begin
                    # The first round warms caches.
                    if turn:
                        times.append(took / 1e6)
                        hits.append(len(set(found) & set(truth[number].tolist())) / K)
            at += 30
        print(f"{len(base)} vectors x {base.shape[1]}, k = {K}; load {os.getloadavg()[0]:.1f}\n")
        print("| one query | ms, median | x rvf-mount | recall@10 |\n| --- | ---: | ---: | ---: |")
        first = statistics.median(running[0][1])
        for engine, times, hits in running:
            middle = statistics.median(times)
            print(f"| {engine.name} | {middle:.3f} | {middle / first:.1f} | {statistics.mean(hits):.3f} |")
    finally:
        for engine, _, _ in running:
            engine.close()
        shutil.rmtree(place)


if __name__ == "__main__":
    sys.exit(main())
