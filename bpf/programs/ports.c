// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Socket filter: of what a packet socket sees, lets through UDP and TCP to ports that are allowed. The bytes begin with the
 * Ethernet header.
 */
#include "packet.h"

/* Bit port % 64 of word port / 64. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} allowed SEC(".maps");

enum counter { LET_THROUGH, OTHER_PORT, NO_PORT, COUNTERS };

COUNT(COUNTERS)

#define NOTHING 0
#define EVERYTHING 0x40000

SEC("socket")
int rvf_ports(struct __sk_buff *skb)
{
	struct transport transport;
	__u32 word;
	__u64 *bits;

	if (find_transport(skb, &transport) != FOUND) {
		count(NO_PORT);
		return NOTHING;
	}
	word = transport.port >> 6;
	bits = bpf_map_lookup_elem(&allowed, &word);
	if (bits && *bits >> (transport.port & 63) & 1) {
		count(LET_THROUGH);
		return EVERYTHING;
	}
	count(OTHER_PORT);
	return NOTHING;
}

char LICENSE[] SEC("license") = "MIT OR Apache-2.0";
