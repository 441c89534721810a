/*
 * The query microkernel: the exact k nearest of rows that a host puts into its memory, block by block.
 *
 *   rvf_abi()                        1: the version of these functions
 *   rvf_open(metric, dim, k)         begins a query: where to put its dim floats; 0 when there is no memory for it.
 *                                    metric: 0 squared L2, 1 negated inner product, 2 cosine; frees all before
 *   rvf_alloc(bytes)                 room for rows, aligned to 16; 0 when there is no memory for it. What is put there stays
 *                                    while queries of the same metric and dim and no larger k are opened and nothing else
 *                                    is allocated
 *   rvf_begin()                      the query's floats are in place
 *   rvf_rows(rows, count)            looks at rows as a VEC segment holds them: id (8 bytes), dim floats (4 bytes each)
 *   rvf_finish()                     sorts what was found, nearest first; how many
 *   rvf_results()                    where they are: id (8 bytes), distance (a float), 4 bytes that say nothing
 *   rvf_distance(metric, dim, a, b)  one distance
 *
 * Nothing is imported. Distances are those of the format, bit for bit: components in order, multiply and add rounded
 * separately. Rows are looked at with fast, unordered sums first; only those whose error margin lets them be among the k
 * nearest get their defined distance, as in the native engine. Order is by distance, then by id; NaN comes last.
 */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef float f32x4 __attribute__((__vector_size__(16), __aligned__(4), __may_alias__));
typedef int i32x4 __attribute__((__vector_size__(16)));
typedef float f32 __attribute__((__may_alias__));
typedef u64 id64 __attribute__((__aligned__(4), __may_alias__));

#define EXPORT(name) __attribute__((export_name(#name), visibility("default")))
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
/* Loops whose time does not count stay small. */
#define SMALL_LOOP _Pragma("clang loop unroll(disable) vectorize(disable)")
/* So do functions. */
#define SMALL __attribute__((minsize))

enum { L2, INNER_PRODUCT, COSINE };

/* Rows of a block that are looked at before the defined distances of those that stay are computed. */
#define CHUNK 1024
#define PAGE 65536u

typedef struct {
    u64 id;
    float distance;
    u32 key;
} Hit;

typedef struct {
    float low;
    const u8 *row;
} Kept;

extern u8 __heap_base;

static u32 top;
static u32 metric, dim, k;
static float *query;
static float query_squares, relative;
/* The k smallest upper bounds seen, the largest first; and the k best hits, the worst first. */
static float *upper;
static u32 uppers;
static Hit *hits;
static u32 found;
static Kept kept[CHUNK];

EXPORT(rvf_abi) u32 rvf_abi(void) {
    return 1;
}

EXPORT(rvf_alloc) SMALL NOINLINE u32 rvf_alloc(u32 bytes) {
    u64 start = (u64)top;
    u64 end = (start + bytes + 15) & ~15ull;
    u64 have = (u64)__builtin_wasm_memory_size(0) * PAGE;
    if (end > have) {
        u64 pages = (end - have + PAGE - 1) / PAGE;
        if (end > 0xFFFF0000ull || __builtin_wasm_memory_grow(0, (u32)pages) == (unsigned long)-1) {
            return 0;
        }
    }
    top = (u32)end;
    return (u32)start;
}

/* Bits that sort as the floats do: zeros of both signs alike, NaN last. */
static NOINLINE SMALL u32 key_of(float value) {
    if (value != value) {
        return 0xFFFFFFFFu;
    }
    union {
        float f;
        u32 u;
    } bits = {value + 0.0f};
    return bits.u & 0x80000000u ? ~bits.u : bits.u | 0x80000000u;
}

INLINE float sum(f32x4 a, f32x4 b) {
    f32x4 all = a + b;
    return (all[0] + all[1]) + (all[2] + all[3]);
}

/* Sums of two rows in any order, for all components. Pointers walk, so that loads get constant offsets. */
INLINE void fast(const f32x4 *a, const f32x4 *b, const f32x4 *c, int l2, float *firsts, float *squares) {
    f32x4 first[4] = {{0}, {0}, {0}, {0}}, square[4] = {{0}, {0}, {0}, {0}};
#define ROW(n, at, b)                                                                                                         \
    {                                                                                                                         \
        f32x4 left = l2 ? a[n] - b[n] : a[n];                                                                                 \
        first[at] += left * (l2 ? left : b[n]);                                                                               \
        square[at] += l2 ? left : b[n] * b[n];                                                                                \
    }
#define STEP(n) ROW(n, (n) % 2, b) ROW(n, 2 + (n) % 2, c)
    SMALL_LOOP
    for (u32 n = dim / 8; n; n--, a += 2, b += 2, c += 2) {
        STEP(0) STEP(1)
    }
    float f0 = sum(first[0], first[1]), f1 = sum(first[2], first[3]);
    float s0 = l2 ? 0 : sum(square[0], square[1]), s1 = l2 ? 0 : sum(square[2], square[3]);
    const f32 *one = (const f32 *)a, *other = (const f32 *)b, *third = (const f32 *)c;
    SMALL_LOOP
    for (u32 n = dim % 8; n; n--, one++, other++, third++) {
        float left = l2 ? *one - *other : *one, right = l2 ? *one - *third : *one;
        f0 += left * (l2 ? left : *other);
        s0 += l2 ? 0 : *other * *other;
        f1 += right * (l2 ? right : *third);
        s1 += l2 ? 0 : *third * *third;
    }
    firsts[0] = f0, firsts[1] = f1;
    squares[0] = s0, squares[1] = s1;
}

INLINE float component_of(const u8 *row, u32 i) {
    return *(const f32 *)(row + 4 * i);
}

/* Defined distances of four rows, one in each lane, so that their chains of additions run side by side. */
static NOINLINE f32x4 defined(u32 kind, u32 n, const float *q, const u8 *const rows[4]) {
    f32x4 first = {0}, squares = {0};
    float q_squares = 0;
    SMALL_LOOP
    for (u32 i = 0; i < n; i++) {
        float component = q[i];
        f32x4 a = {component, component, component, component};
        f32x4 b = {component_of(rows[0], i), component_of(rows[1], i), component_of(rows[2], i), component_of(rows[3], i)};
        f32x4 left = kind == L2 ? a - b : a, right = kind == L2 ? left : b;
        first += left * right;
        squares += b * b;
        q_squares += component * component;
    }
    if (kind == L2) {
        return first;
    }
    if (kind == INNER_PRODUCT) {
        return -first;
    }
    f32x4 one = {1, 1, 1, 1}, den = __builtin_wasm_sqrt_f32x4(squares * q_squares);
    i32x4 cosine = (i32x4)(one - first / den), none = den < 0x1p-23f;
    return (f32x4)((none & (i32x4)one) | (~none & cosine));
}

EXPORT(rvf_distance) float rvf_distance(u32 kind, u32 n, const float *a, const u8 *b) {
    const u8 *const rows[4] = {b, b, b, b};
    return defined(kind, n, a, rows)[0];
}

EXPORT(rvf_open) SMALL u32 rvf_open(u32 kind, u32 dimension, u32 nearest) {
    top = (u32)&__heap_base;
    metric = kind, dim = dimension, k = nearest;
    uppers = found = 0;
    if (kind > COSINE || dimension > 65535 || nearest > (1u << 24)) {
        return 0;
    }
    u32 for_query = rvf_alloc(4 * dimension), for_upper = rvf_alloc(4 * nearest), for_hits = rvf_alloc(16 * nearest);
    if (!for_query || !for_upper || !for_hits) {
        return 0;
    }
    query = (float *)for_query, upper = (float *)for_upper, hits = (Hit *)for_hits;
    return for_query;
}

EXPORT(rvf_begin) SMALL void rvf_begin(void) {
    query_squares = 0;
    SMALL_LOOP
    for (u32 i = 0; i < dim; i++) {
        query_squares += query[i] * query[i];
    }
    /* A sum of n products in f32 is off by at most n * 2^-24 of their magnitudes, in either order; a tenth for the rest. */
    relative = 2.2f * ((float)dim + 8.0f) * 0x1p-24f;
}

INLINE int worse(const Hit *a, const Hit *b) {
    return a->key != b->key ? a->key > b->key : a->id > b->id;
}

static NOINLINE SMALL void sink_hit(u32 at, u32 count) {
    Hit moved = hits[at];
    for (u32 child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && worse(&hits[child + 1], &hits[child])) {
            child++;
        }
        if (!worse(&hits[child], &moved)) {
            break;
        }
        hits[at] = hits[child];
    }
    hits[at] = moved;
}

static NOINLINE SMALL void offer_hit(u64 id, float distance) {
    Hit hit = {id, distance, key_of(distance)};
    if (found < k) {
        u32 at = found++;
        for (; at && worse(&hit, &hits[(at - 1) / 2]); at = (at - 1) / 2) {
            hits[at] = hits[(at - 1) / 2];
        }
        hits[at] = hit;
    } else if (worse(&hits[0], &hit)) {
        hits[0] = hit;
        sink_hit(0, found);
    }
}

static NOINLINE SMALL void offer_upper(float value) {
    u32 at = 0;
    if (uppers < k) {
        for (at = uppers++; at && value > upper[(at - 1) / 2]; at = (at - 1) / 2) {
            upper[at] = upper[(at - 1) / 2];
        }
    } else {
        for (u32 child; (child = 2 * at + 1) < k; at = child) {
            if (child + 1 < k && upper[child + 1] > upper[child]) {
                child++;
            }
            if (upper[child] <= value) {
                break;
            }
            upper[at] = upper[child];
        }
    }
    upper[at] = value;
}

/* No row above this is among the k nearest. */
INLINE float bound(void) {
    return uppers < k ? __builtin_inff() : upper[0];
}

INLINE u32 shortlist(const u8 *row, u32 count) {
    u32 n = 0, stride = 8 + 4 * dim;
    float worst = bound();
    while (count) {
        float firsts[2], all_squares[2];
        u32 kind = metric, two = count > 1 ? 2 : 1;
        const f32x4 *q = (const f32x4 *)query, *b = (const f32x4 *)(row + 8), *c = (const f32x4 *)(row + 8 + (two - 1) * stride);
        /* Asked for each pair: a loop for each metric would only be larger. */
        __asm__ volatile("" : "+r"(kind));
        if (kind == L2) {
            fast(q, b, c, 1, firsts, all_squares);
        } else {
            fast(q, b, c, 0, firsts, all_squares);
        }
        count -= two;
        SMALL_LOOP
        for (u32 r = 0; r < two; r++, row += stride) {
            float value = firsts[r], off = value * relative, squares = all_squares[r];
            if (kind != L2) {
                float den = __builtin_sqrtf(query_squares * squares);
                if (kind == INNER_PRODUCT) {
                    value = -value, off = den * relative;
                } else {
                    int sure = den > 0x1p-22f && den < __builtin_inff() && squares > 1e-30f && query_squares > 1e-30f;
                    value = sure ? 1.0f - value / den : __builtin_nanf(""), off = 4.0f * relative;
                }
            }
            /* Products below the normal range lose precision; this covers 65,535 of them. */
            off += 1e-38f;
            /* Not finite: the fast sums say nothing. */
            float low = value - off, high = value + off;
            if (!(high - low < __builtin_inff())) {
                low = -__builtin_inff(), high = __builtin_inff();
            }
            if (low > worst) {
                continue;
            }
            kept[n].low = low;
            kept[n++].row = row;
            if (high < worst || uppers < k) {
                offer_upper(high);
                worst = bound();
            }
        }
    }
    return n;
}

EXPORT(rvf_rows) void rvf_rows(const u8 *rows, u32 count) {
    u32 stride = 8 + 4 * dim;
    while (count && k) {
        u32 some = count < CHUNK ? count : CHUNK;
        u32 n = shortlist(rows, some);
        float worst = bound();
        u32 left = 0;
        SMALL_LOOP
        for (u32 i = 0; i < n; i++) {
            if (kept[i].low <= worst) {
                kept[left++] = kept[i];
            }
        }
        for (u32 i = 0; i < left; i += 4) {
            const u8 *group[4];
            SMALL_LOOP
            for (u32 r = 0; r < 4; r++) {
                group[r] = kept[i + r < left ? i + r : i].row + 8;
            }
            f32x4 out = defined(metric, dim, query, group);
            SMALL_LOOP
            for (u32 r = 0; r < 4 && i + r < left; r++) {
                offer_hit(*(const id64 *)(group[r] - 8), out[r]);
            }
        }
        rows += some * stride;
        count -= some;
    }
}

EXPORT(rvf_finish) SMALL u32 rvf_finish(void) {
    for (u32 n = found; n > 1;) {
        Hit last = hits[--n];
        hits[n] = hits[0];
        hits[0] = last;
        sink_hit(0, n);
    }
    return found;
}

EXPORT(rvf_results) u32 rvf_results(void) {
    return (u32)hits;
}
