// Searches an .rvf file that a server gives away in ranges, with the WebAssembly module that the file carries. docs/format.md
// says what lies where.

const FILE = "/file";
const HEADER = 64;
const PAGE = 4096;
const MAGIC = 0x52564653;
const MANIFEST = 0x05;
const VEC = 0x01;
const COW_MAP = 0x20;
const DELTA = 0x23;
const WASM = 0x10;
const WASM_HEADER = 64;
const WASM_MAGIC = 0x5256574d;
const ROOT_PAGE = 0x52564d30;
const MOST_NEIGHBOURS = 1000;
/** The last bytes of a file in which its manifest is looked for: 2.6 million segments. */
const LONGEST_TAIL = 64 << 20;
/** Bytes that are asked for at a time. */
const BLOCK = 16 << 20;

const element = (id) => document.getElementById(id);
const padded = (n) => Math.ceil(n / 64) * 64;

/** The bytes of one state of the file. A commit in between makes every further range fail instead of mixing two states. */
class Remote {
  static async open() {
    const head = await fetch(FILE, { method: "HEAD" });
    if (!head.ok) throw new Error(`the server refuses the file: ${head.status}`);
    const remote = new Remote();
    remote.length = Number(head.headers.get("Content-Length"));
    remote.etag = head.headers.get("ETag");
    return remote;
  }

  /** The bytes from start to end, into `out` where it is given. */
  async read(start, end, out = new Uint8Array(end - start)) {
    for (let at = start; at < end; at += BLOCK) {
      const last = Math.min(end, at + BLOCK);
      const answer = await fetch(FILE, {
        headers: { Range: `bytes=${at}-${last - 1}`, "If-Match": this.etag },
        cache: "no-store",
      });
      if (answer.status === 412) throw new Error("the file has changed meanwhile; load the page again");
      if (answer.status !== 206) throw new Error(`the server refuses a part of the file: ${answer.status}`);
      const bytes = new Uint8Array(await answer.arrayBuffer());
      if (bytes.length !== last - at) throw new Error("a part of the file came shorter than asked for");
      out.set(bytes, at - start);
    }
    return out;
  }
}

const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Numbers beyond 2^53 lead nowhere in a file. */
const place = (data, at) => Number(data.getBigUint64(at, true));

/** The payload of the manifest in force, when it is the last segment, as in every file whose last writer finished. */
async function manifest(remote) {
  for (let tail = 64 << 10; ; tail *= 8) {
    const start = Math.max(0, Math.floor((remote.length - tail) / 64) * 64);
    const bytes = await remote.read(start, remote.length);
    const data = view(bytes);
    let end = bytes.length;
    if (end >= PAGE && data.getUint32(end - PAGE, true) === ROOT_PAGE) end -= PAGE;
    for (let at = Math.floor((end - HEADER) / 64) * 64; at >= 0; at -= 64) {
      if (data.getUint32(at, true) !== MAGIC || data.getUint8(at + 5) !== MANIFEST) continue;
      const payload = at + HEADER + place(data, at + 0x10);
      if (payload <= end && padded(payload) >= end) return bytes.subarray(at + HEADER, payload);
    }
    if (start === 0 || tail >= LONGEST_TAIL) {
      throw new Error("the file does not end in a manifest; rvf check says what is wrong with it");
    }
  }
}

/** What the manifest says, as far as it is needed. */
function parse(payload) {
  const data = view(payload);
  const count = data.getUint32(14, true);
  const found = { dimension: data.getUint16(4, true), metric: data.getUint8(19), segments: [], deleted: new Set() };
  let at = 22;
  for (let n = 0; n < count; n++, at += 25) {
    found.segments.push({ offset: place(data, at + 8), length: place(data, at + 16), type: data.getUint8(at + 24) });
  }
  const deleted = data.getUint32(at, true);
  for (let n = 0; n < deleted; n++) found.deleted.add(data.getBigUint64(at + 4 + 8 * n, true));
  if (found.metric > 2) throw new Error(`the store measures distances in a way that is unknown here (${found.metric})`);
  return found;
}

/** The query module that the file carries: the first listed one that speaks this interface. */
async function module(remote, segments) {
  for (const { offset, length } of segments.filter((segment) => segment.type === WASM)) {
    const bytes = await remote.read(offset + HEADER, offset + HEADER + length);
    const data = view(bytes);
    if (data.getUint32(0, true) !== WASM_MAGIC) continue;
    const size = data.getUint32(0x0c, true);
    const code = bytes.subarray(WASM_HEADER, WASM_HEADER + size);
    const compiled = await WebAssembly.compile(code);
    if (WebAssembly.Module.imports(compiled).length > 0) continue;
    if (!WebAssembly.Module.exports(compiled).some(({ name }) => name === "rvf_abi")) continue;
    const { exports } = await WebAssembly.instantiate(compiled);
    if (exports.rvf_abi() === 1) return { exports, size };
  }
  throw new Error("the file carries no query module; embed one with rvf embed-wasm STORE");
}

/** A store whose rows lie in the module's memory. */
class Store {
  static async open() {
    const remote = await Remote.open();
    const found = parse(await manifest(remote));
    if (found.segments.some(({ type }) => type === COW_MAP || type === DELTA)) {
      throw new Error("this is a branch, which needs its parent; serve a whole store made of it (rvf derive -t reindex, then rvf embed-wasm)");
    }
    const store = new Store();
    store.dimension = found.dimension;
    store.metric = found.metric;
    store.stride = 8 + 4 * found.dimension;
    const { exports, size } = await module(remote, found.segments);
    store.exports = exports;
    store.moduleSize = size;
    // Room for the largest answer first: opening a smaller query later leaves the rows behind it where they are.
    if (exports.rvf_open(store.metric, store.dimension, MOST_NEIGHBOURS) === 0) throw new Error("no memory");
    const blocks = [];
    for (const { offset, length } of found.segments.filter(({ type }) => type === VEC)) {
      const head = view(await remote.read(offset, offset + HEADER + 6));
      const count = head.getUint32(HEADER + 2, true);
      const plain = head.getUint32(0, true) === MAGIC && head.getUint8(5) === VEC && place(head, 0x10) === length;
      if (!plain) throw new Error(`the segment at offset ${offset} is not the one that is listed; see rvf check`);
      if (head.getUint16(HEADER, true) !== found.dimension || 6 + count * store.stride !== length) {
        throw new Error(`the vectors at offset ${offset} are not stored as rows, which is all that is read here`);
      }
      const bytes = count * store.stride;
      const at = exports.rvf_alloc(bytes) >>> 0;
      if (at === 0 && bytes > 0) throw new Error("the vectors do not fit into the memory of a page");
      const start = offset + HEADER + 6;
      await remote.read(start, start + bytes, new Uint8Array(exports.memory.buffer, at, bytes));
      blocks.push({ at, count });
    }
    store.keep(blocks, found.deleted);
    return store;
  }

  /** Finds the runs of rows that count: of equal ids the newest row, and none of a deleted id. */
  keep(blocks, deleted) {
    const data = new DataView(this.exports.memory.buffer);
    this.rows = new Map();
    for (const { at, count } of blocks) {
      for (let n = 0; n < count; n++) {
        const row = at + n * this.stride;
        this.rows.set(data.getBigUint64(row, true), row);
      }
    }
    for (const id of deleted) this.rows.delete(id);
    this.runs = [];
    for (const { at, count } of blocks) {
      let length = 0;
      for (let n = 0; n <= count; n++) {
        const row = at + n * this.stride;
        if (n < count && this.rows.get(data.getBigUint64(row, true)) === row) {
          length++;
        } else if (length > 0) {
          this.runs.push({ at: row - length * this.stride, count: length });
          length = 0;
        }
      }
    }
  }

  /** The vector of a stored id. */
  vector(id) {
    const row = this.rows.get(id);
    if (row === undefined) throw new Error(`there is no vector ${id}`);
    const bytes = this.exports.memory.buffer.slice(row + 8, row + this.stride);
    return new Float32Array(bytes);
  }

  /** The k nearest, as pairs of id and distance. */
  search(vector, k) {
    const { exports } = this;
    const at = exports.rvf_open(this.metric, this.dimension, k) >>> 0;
    new Float32Array(exports.memory.buffer, at, this.dimension).set(vector);
    exports.rvf_begin();
    for (const run of this.runs) exports.rvf_rows(run.at, run.count);
    const count = exports.rvf_finish();
    const data = new DataView(exports.memory.buffer, exports.rvf_results() >>> 0, 16 * count);
    return Array.from({ length: count }, (_, n) => [data.getBigUint64(16 * n, true), data.getFloat32(16 * n + 8, true)]);
  }
}

/** A vector as it was typed, or that of an id. */
function asked(store, text) {
  const words = text.trim().replace(/^\[|\]$/g, "").split(/[\s,;]+/).filter((word) => word !== "");
  if (words.length === 1 && /^\d+$/.test(words[0]) && store.dimension !== 1) return store.vector(BigInt(words[0]));
  const vector = Float32Array.from(words, Number);
  const bad = vector.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw new Error(`${words[bad]} is ${Number.isFinite(Number(words[bad])) ? "too large" : "no number"}`);
  if (vector.length !== store.dimension) {
    throw new Error(`${vector.length} numbers; a vector of this store has ${store.dimension}`);
  }
  return vector;
}

/** A float of 32 bits, no longer than it must be to read back the same. */
function shortest(value) {
  for (let digits = 1; digits < 9; digits++) {
    const text = value.toPrecision(digits);
    if (Math.fround(Number(text)) === value) return String(Number(text));
  }
  return String(value);
}

function show(store, text, k, repeat) {
  const vector = asked(store, text);
  if (!(Number.isInteger(k) && k >= 1 && k <= MOST_NEIGHBOURS)) throw new Error(`neighbours: 1 to ${MOST_NEIGHBOURS}`);
  const times = [];
  let hits = [];
  for (let n = 0; n < repeat; n++) {
    const started = performance.now();
    hits = store.search(vector, k);
    times.push(performance.now() - started);
  }
  times.sort((a, b) => a - b);
  const rows = hits.map(([id, distance]) => {
    const row = document.createElement("tr");
    for (const value of [id, shortest(distance)]) row.appendChild(document.createElement("td")).textContent = value;
    return row;
  });
  element("hits").tBodies[0].replaceChildren(...rows);
  element("hits").hidden = false;
  element("said").className = "";
  element("said").textContent = `${hits.length} of ${store.rows.size}, ${times[times.length >> 1].toFixed(2)} ms`;
}

async function main() {
  const parameters = new URLSearchParams(location.search);
  let store;
  try {
    store = await Store.open();
  } catch (error) {
    element("about").textContent = `Not to be searched here: ${error.message}`;
    document.body.dataset.state = "failed";
    return;
  }
  const metric = ["squared L2", "negated inner product", "1 - cosine"][store.metric];
  element("about").textContent =
    `${store.rows.size} vectors of ${store.dimension} numbers, ${metric}; module of ${store.moduleSize} bytes.`;
  element("go").disabled = false;
  const search = (repeat) => {
    try {
      show(store, element("query").value, Number(element("k").value), repeat);
    } catch (error) {
      element("hits").tBodies[0].replaceChildren();
      element("hits").hidden = true;
      element("said").textContent = error.message;
      element("said").className = "failed";
    }
  };
  element("form").addEventListener("submit", (event) => {
    event.preventDefault();
    search(1);
  });
  if (parameters.has("k")) element("k").value = parameters.get("k");
  if (parameters.has("q")) {
    element("query").value = parameters.get("q");
    search(Math.min(1000, Math.max(1, Number(parameters.get("repeat") ?? 1) || 1)));
  }
  document.body.dataset.state = "ready";
}

main();
