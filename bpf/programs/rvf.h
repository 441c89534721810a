/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the programs share with each other and, by layout, with the crate rvf-bpf (src/wire.rs, src/maps.rs). */
#ifndef RVF_H
#define RVF_H

#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_DIM 1024
#define MAX_K 16

/* "RVFQ" and "RVFA" as they lie in a packet, read as little-endian numbers. */
#define MAGIC_QUERY 0x51465652u
#define MAGIC_ANSWER 0x41465652u
#define WIRE_VERSION 1

enum op { OP_NEAREST = 0, OP_DESCRIBE = 1, OP_LOOKUP = 2 };

enum status { STATUS_OK = 0, STATUS_VERSION = 1, STATUS_OP = 2, STATUS_DIMENSION = 3, STATUS_K = 4, STATUS_WIDTH = 5,
	      STATUS_SHORT = 6, STATUS_SHIFT = 7 };

/* Begins every query. */
struct query {
	__u32 magic;
	__u8 version;
	__u8 op;
	/* Bytes a component: 1, 2 or 3. */
	__u8 width;
	/* The query's step is that of the hot vectors times 2^shift (squared L2). */
	__u8 shift;
	__u16 dim;
	__u16 k;
	__u32 token;
};

struct result {
	__u64 id;
	__s64 raw;
};

struct answer {
	__u32 magic;
	__u8 version;
	__u8 op;
	__u8 status;
	__u8 metric;
	__u16 dim;
	__u16 k;
	__u32 token;
	__u32 count;
	__u32 epoch;
	__u64 step;
	struct result results[MAX_K];
};

/* The counters of a program, and what adds to one of them. */
#define COUNT(number)                                                        \
	struct {                                                             \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                     \
		__uint(max_entries, number);                                 \
		__type(key, __u32);                                          \
		__type(value, __u64);                                        \
	} counters SEC(".maps");                                             \
                                                                             \
	static __always_inline void count(__u32 which)                       \
	{                                                                    \
		__u64 *value = bpf_map_lookup_elem(&counters, &which);       \
                                                                             \
		if (value)                                                   \
			*value += 1;                                         \
	}

#define ANSWER_HEAD 32

#define REFUSE_FRAGMENTS 0x3fff

/* The helper's instruction is a load; clang would otherwise carry bounds of one register over to a copy in another. */
#define KEEP(value) asm volatile("" : "+r"(value))

#endif
