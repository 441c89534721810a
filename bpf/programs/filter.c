// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Traffic control, ingress or egress: passes, drops or redirects packets by destination port, and look-ups of a vector by
 * whether the store holds its id.
 *
 * A look-up is a UDP packet to one port whose payload is "RVFQ", version 1, operation 2, and at offset 16 the id (u64). Look-ups
 * of vectors that the store does not hold are dropped, or sent out of another interface, behind which another store
 * may have them.
 */
#include "packet.h"

struct config {
	/* Of the bitmap: ids from here on are not held. */
	__u64 ids;
	/* Where look-ups of other ids go; 0 drops them. */
	__u32 elsewhere;
	/* Of look-ups; 0 when membership is not asked for. */
	__u16 port;
	__u16 unused;
};

const volatile struct config config = { .ids = 64, .port = 7474 };

enum action { PASS = 0, DROP = 1, REDIRECT = 2 };

struct rule {
	__u32 action;
	__u32 interface;
};

/* By destination port, UDP and TCP alike. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u16);
	__type(value, struct rule);
} rules SEC(".maps");

/* Bit id % 64 of word id / 64. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} members SEC(".maps");

enum counter { PASSED, PORT_DROPPED, PORT_REDIRECTED, MEMBERS, OTHERS_DROPPED, OTHERS_REDIRECTED, MALFORMED, COUNTERS };

COUNT(COUNTERS)

static __always_inline int is_member(__u64 id)
{
	__u32 word = id >> 6;
	__u64 *bits;

	if (id >= config.ids)
		return 0;
	bits = bpf_map_lookup_elem(&members, &word);
	return bits && (*bits >> (id & 63) & 1);
}

#define ACT_OK 0
#define ACT_SHOT 2

SEC("classifier")
int rvf_filter(struct __sk_buff *skb)
{
	struct transport transport;
	struct rule *rule;

	switch (find_transport(skb, &transport)) {
	case FOUND:
		break;
	case NO_PORT_HERE:
		return ACT_OK;
	case UNREADABLE:
		/* What it is for cannot be told, so no rule may be passed by with it. */
		count(MALFORMED);
		return ACT_SHOT;
	}
	rule = bpf_map_lookup_elem(&rules, &transport.port);
	if (rule && rule->action == DROP) {
		count(PORT_DROPPED);
		return ACT_SHOT;
	}
	if (rule && rule->action == REDIRECT) {
		count(PORT_REDIRECTED);
		return bpf_redirect(rule->interface, 0);
	}

	if (config.port && transport.port == config.port && transport.protocol == IPPROTO_UDP) {
		struct query query;
		__u64 id;
		__u32 payload = transport.at + sizeof(struct udphdr);

		if (!bpf_skb_load_bytes(skb, payload, &query, sizeof(query)) && query.magic == MAGIC_QUERY &&
		    query.version == WIRE_VERSION && query.op == OP_LOOKUP) {
			if (bpf_skb_load_bytes(skb, payload + sizeof(query), &id, sizeof(id))) {
				count(MALFORMED);
				return ACT_SHOT;
			}
			if (is_member(id)) {
				count(MEMBERS);
				return ACT_OK;
			}
			if (config.elsewhere) {
				count(OTHERS_REDIRECTED);
				return bpf_redirect(config.elsewhere, 0);
			}
			count(OTHERS_DROPPED);
			return ACT_SHOT;
		}
	}
	count(PASSED);
	return ACT_OK;
}

char LICENSE[] SEC("license") = "MIT OR Apache-2.0";
