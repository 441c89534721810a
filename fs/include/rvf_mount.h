/* rvf_mount.h - one-message queries on query/in of a mounted vector store.
 *
 * Open DIR/query/in with O_RDWR, fill a buffer of rvf_query_size(dim, k) bytes, and call
 *
 *     ioctl(fd, RVF_IOC_QUERY(size), buffer)
 *
 * The answer overwrites the request. A return value of -1 leaves it alone; errno is EINVAL for a wrong request (the
 * reason is in DIR/query/error), ETIMEDOUT past the session's timeout_ms. Settings that are 0 take the session's
 * defaults, and so do filter and exact. The buffer has at most 16383 bytes, which is 4089 dimensions or 1363 hits;
 * larger requests are written and read instead. All numbers are in the machine's (little-endian) order.
 */
#ifndef RVF_MOUNT_H
#define RVF_MOUNT_H

#include <linux/ioctl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define RVF_QUERY_VERSION 1u
#define RVF_QUERY_EXACT 1u     /* request: look at every vector; answer: every vector was looked at */
#define RVF_QUERY_TRUNCATED 2u /* answer: cut short by the deadline */
#define RVF_QUERY_HEAD 24u     /* bytes before the query, and before the ids */
#define RVF_QUERY_MAX 16383u   /* largest buffer */

#define RVF_IOC_QUERY(size) _IOC(_IOC_READ | _IOC_WRITE, 'R', 1, (size))

struct rvf_query { /* followed by float query[dim] */
    uint32_t version; /* RVF_QUERY_VERSION */
    uint32_t k;       /* hits wanted, or 0 */
    uint32_t ef;      /* width of the walk, or 0 */
    uint32_t dim;     /* the store's dimension */
    uint32_t flags;   /* RVF_QUERY_EXACT or 0 */
    uint32_t reserved;
};

struct rvf_answer { /* followed by uint64_t ids[count], then float distances[count] */
    uint32_t count;
    uint32_t flags;
    uint32_t visited;
    uint32_t microseconds;
    uint32_t layer; /* 0 scan, 1 A, 2 B, 3 C */
    uint32_t reserved;
};

/* Bytes of a buffer for a query of dim numbers and an answer of k hits. */
static inline size_t rvf_query_size(uint32_t dim, uint32_t k)
{
    size_t query = (size_t)dim * 4, answer = (size_t)k * 12;
    return RVF_QUERY_HEAD + (query > answer ? query : answer);
}

/* Writes a request into the buffer. */
static inline void rvf_query_fill(void *buffer, const float *query, uint32_t dim, uint32_t k, uint32_t ef)
{
    struct rvf_query head = {RVF_QUERY_VERSION, k, ef, dim, 0, 0};
    memcpy(buffer, &head, sizeof head);
    memcpy((char *)buffer + RVF_QUERY_HEAD, query, (size_t)dim * 4);
}

/* Reads hit i of an answer. */
static inline void rvf_answer_hit(const void *buffer, uint32_t i, uint64_t *id, float *distance)
{
    uint32_t count;
    memcpy(&count, buffer, sizeof count);
    memcpy(id, (const char *)buffer + RVF_QUERY_HEAD + (size_t)i * 8, sizeof *id);
    memcpy(distance, (const char *)buffer + RVF_QUERY_HEAD + (size_t)count * 8 + (size_t)i * 4, sizeof *distance);
}

#endif
