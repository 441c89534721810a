/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Where the transport header of a packet lies, for the programs that read packets through the kernel (struct __sk_buff). */
#ifndef PACKET_H
#define PACKET_H

#include "rvf.h"

/* Headers of IPv6 that lie between the address and the transport header and that are passed over. Many of them take turns in no
 * packet of an honest sender, but the network stack takes any number. */
#define MAX_EXTENSIONS 16

/* Begins each of them but the fragment header. */
struct extension {
	__u8 next;
	/* In units of 8 bytes, the first one not counted. */
	__u8 length;
};

struct fragment {
	__u8 next;
	__u8 unused;
	/* In units of 8 bytes, and three flags below. */
	__be16 offset;
	__be32 id;
};

enum found {
	/* UDP or TCP, and the port is known. */
	FOUND = 0,
	/* There is none: another protocol, or a later fragment of a packet whose first one has it. */
	NO_PORT_HERE,
	/* There may be one behind what is cut off, or behind more headers than are passed over. */
	UNREADABLE,
};

struct transport {
	/* Of the header, counted from the Ethernet header. */
	__u32 at;
	__u8 protocol;
	/* Destination. */
	__u16 port;
};

/* Walks to the first header that is none of those that only lie in between. */
static __always_inline enum found pass_extensions(struct __sk_buff *skb, struct transport *found)
{
	for (int i = 0; i <= MAX_EXTENSIONS; i++) {
		if (found->protocol == IPPROTO_HOPOPTS || found->protocol == IPPROTO_ROUTING ||
		    found->protocol == IPPROTO_DSTOPTS) {
			struct extension header;

			if (bpf_skb_load_bytes(skb, found->at, &header, sizeof(header)))
				return UNREADABLE;
			found->at += (header.length + 1) * 8;
			found->protocol = header.next;
		} else if (found->protocol == IPPROTO_FRAGMENT) {
			struct fragment header;

			if (bpf_skb_load_bytes(skb, found->at, &header, sizeof(header)))
				return UNREADABLE;
			if (header.offset & bpf_htons(0xfff8))
				return NO_PORT_HERE;
			found->at += sizeof(header);
			found->protocol = header.next;
		} else {
			return FOUND;
		}
	}
	return UNREADABLE;
}

static __always_inline enum found find_transport(struct __sk_buff *skb, struct transport *found)
{
	__be16 type, port;

	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_proto), &type, sizeof(type)))
		return UNREADABLE;
	if (type == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return UNREADABLE;
		if (ip.frag_off & bpf_htons(0x1fff))
			return NO_PORT_HERE;
		found->at = ETH_HLEN + ip.ihl * 4;
		found->protocol = ip.protocol;
	} else if (type == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;
		enum found passed;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return UNREADABLE;
		found->at = ETH_HLEN + sizeof(ip);
		found->protocol = ip.nexthdr;
		passed = pass_extensions(skb, found);
		if (passed != FOUND)
			return passed;
	} else {
		return NO_PORT_HERE;
	}
	if (found->protocol != IPPROTO_UDP && found->protocol != IPPROTO_TCP)
		return NO_PORT_HERE;
	/* Both have it in the same place. */
	if (bpf_skb_load_bytes(skb, found->at + offsetof(struct udphdr, dest), &port, sizeof(port)))
		return UNREADABLE;
	found->port = bpf_ntohs(port);
	return FOUND;
}

#endif
