// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Socket filter: of what a packet socket sees, lets through UDP and TCP to ports that are allowed. The bytes begin with the
 * Ethernet header.
 */
#include "rvf.h"

/* Bit port % 64 of word port / 64. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} allowed SEC(".maps");

enum counter { LET_THROUGH, OTHER_PORT, NO_PORT, COUNTERS };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &which);

	if (value)
		*value += 1;
}

#define NOTHING 0
#define EVERYTHING 0x40000

SEC("socket")
int rvf_ports(struct __sk_buff *skb)
{
	__u32 transport, word;
	__u8 protocol;
	__be16 type, port, fragment;
	__u64 *bits;

	if (bpf_skb_load_bytes(skb, 12, &type, sizeof(type)))
		goto none;
	if (type == bpf_htons(ETH_P_IP)) {
		__u8 first;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &first, 1) ||
		    bpf_skb_load_bytes(skb, ETH_HLEN + 6, &fragment, sizeof(fragment)) ||
		    bpf_skb_load_bytes(skb, ETH_HLEN + 9, &protocol, 1) || fragment & bpf_htons(0x1fff))
			goto none;
		transport = ETH_HLEN + (first & 15) * 4;
	} else if (type == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + 6, &protocol, 1))
			goto none;
		transport = ETH_HLEN + sizeof(struct ipv6hdr);
	} else {
		goto none;
	}
	if (protocol != IPPROTO_UDP && protocol != IPPROTO_TCP)
		goto none;
	if (bpf_skb_load_bytes(skb, transport + 2, &port, sizeof(port)))
		goto none;
	port = bpf_ntohs(port);
	word = port >> 6;
	bits = bpf_map_lookup_elem(&allowed, &word);
	if (bits && *bits >> (port & 63) & 1) {
		count(LET_THROUGH);
		return EVERYTHING;
	}
	count(OTHER_PORT);
	return NOTHING;
none:
	count(NO_PORT);
	return NOTHING;
}

char LICENSE[] SEC("license") = "MIT OR Apache-2.0";
