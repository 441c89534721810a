#!/usr/bin/env python3
"""One rival search engine as a process that the peers bench drives.

    peers.py ENGINE DATA CACHE      ENGINE: hnswlib faiss-sq8 usearch-f16 usearch-f32 scann

Reads one request a line from standard input and answers each with one JSON object a line:

    knobs                           the values of the engine's search parameter, ascending
    build THREADS                   builds the index anew: {"cpu": s, "wall": s}
    load                            from CACHE, building it on one thread first when it is not there
    search KNOB FIRST STEP TIMES    answers the queries FIRST, FIRST+STEP, ... TIMES times over, in one call a pass:
                                    {"cpu": s, "wall": s, "queries": n, "rows": [[row, ...], ...]}

DATA holds base.f16.npy and queries.f32.npy. Answers are row numbers. All engines get unit vectors in f32 and M 16,
ef_construction 200, and search on one thread.
"""
import json
import os
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np

K, M, EF_CONSTRUCTION = 10, 16, 200
EFS = [*range(10, 40, 2), *range(40, 256, 8), *range(256, 513, 32)]


def timed(work):
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}, result


class Hnswlib:
    knobs = EFS

    def __init__(self, base, path):
        import hnswlib
        self.module, self.base, self.path = hnswlib, base, path

    def build(self, threads):
        index = self.module.Index("ip", self.base.shape[1])
        index.init_index(len(self.base), M=M, ef_construction=EF_CONSTRUCTION, random_seed=100)
        index.add_items(self.base, num_threads=threads)
        self.index = index

    def save(self):
        self.index.save_index(self.path)

    def load(self):
        self.index = self.module.Index("ip", self.base.shape[1])
        self.index.load_index(self.path)

    def search(self, queries, knob):
        self.index.set_ef(knob)
        return self.index.knn_query(queries, k=K, num_threads=1)[0]


class Faiss:
    knobs = EFS

    def __init__(self, base, path):
        import faiss
        self.module, self.base, self.path = faiss, base, path

    def build(self, threads):
        faiss = self.module
        faiss.omp_set_num_threads(threads)
        index = faiss.IndexHNSWSQ(
            self.base.shape[1], faiss.ScalarQuantizer.QT_8bit, M, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = EF_CONSTRUCTION
        index.train(self.base)
        index.add(self.base)
        faiss.omp_set_num_threads(1)
        self.index = index

    def save(self):
        self.module.write_index(self.index, self.path)

    def load(self):
        self.module.omp_set_num_threads(1)
        self.index = self.module.read_index(self.path)

    def search(self, queries, knob):
        self.index.hnsw.efSearch = knob
        return self.index.search(queries, K)[1]


class Usearch:
    knobs = EFS

    def __init__(self, base, path, dtype):
        from usearch.index import Index
        self.make, self.base, self.path, self.dtype = Index, base, path, dtype

    def build(self, threads):
        self.index = self.make(ndim=self.base.shape[1], metric="ip", dtype=self.dtype, connectivity=M,
                               expansion_add=EF_CONSTRUCTION)
        self.index.add(np.arange(len(self.base)), self.base, threads=threads)

    def save(self):
        self.index.save(self.path)

    def load(self):
        self.index = self.make.restore(self.path)

    def search(self, queries, knob):
        self.index.expansion_search = knob
        return self.index.search(queries, K, threads=1).keys


class Scann:
    knobs = [*range(5, 50, 5), *range(50, 200, 10), *range(200, 501, 20)]

    def __init__(self, base, path):
        import scann
        self.module, self.base, self.path = scann.scann_ops_pybind, base, path

    def build(self, threads):
        leaves = max(10, int(2 * len(self.base) ** 0.5))
        builder = self.module.builder(self.base, K, "dot_product")
        builder = builder.tree(num_leaves=leaves, num_leaves_to_search=leaves // 10, training_sample_size=len(self.base))
        builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100)
        builder.set_n_training_threads(threads)
        self.index = builder.build()

    def save(self):
        os.makedirs(self.path, exist_ok=True)
        self.index.serialize(self.path)

    def load(self):
        self.index = self.module.load_searcher(self.path)

    def search(self, queries, knob):
        # More leaves alone stop short of 0.99: what is compared exactly has to grow with them.
        return self.index.search_batched(queries, final_num_neighbors=K, pre_reorder_num_neighbors=max(100, knob),
                                         leaves_to_search=knob)[0]


ENGINES = {
    "hnswlib": Hnswlib,
    "faiss-sq8": Faiss,
    "usearch-f16": lambda base, path: Usearch(base, path, "f16"),
    "usearch-f32": lambda base, path: Usearch(base, path, "f32"),
    "scann": Scann,
}


def unit(rows):
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def main():
    name, data, cache = sys.argv[1:4]
    base = unit(np.load(os.path.join(data, "base.f16.npy")))
    queries = unit(np.load(os.path.join(data, "queries.f32.npy")))
    os.makedirs(cache, exist_ok=True)
    path = os.path.join(cache, f"{name}-{len(base)}.index")
    engine = ENGINES[name](base, path)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "knobs":
            answer = {"knobs": engine.knobs}
        elif words[0] == "build":
            answer, _ = timed(lambda: engine.build(int(words[1])))
        elif words[0] == "load":
            if not os.path.exists(path):
                engine.build(1)
                engine.save()
            engine.load()
            answer = {}
        elif words[0] == "search":
            knob, first, step, times = map(int, words[1:5])
            asked = np.ascontiguousarray(queries[first::step])
            engine.search(asked[:4], knob)

            def passes():
                for _ in range(times):
                    rows = engine.search(asked, knob)
                return rows
            answer, rows = timed(passes)
            answer.update(queries=times * len(asked), rows=np.asarray(rows).astype(int).tolist())
        else:
            answer = {"error": f"unknown request {words[0]}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
