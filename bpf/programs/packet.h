/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Where the transport header of a packet lies, for the programs that read packets through the kernel (struct __sk_buff). */
#ifndef PACKET_H
#define PACKET_H

#include "rvf.h"

struct transport {
	/* Of the header, counted from the Ethernet header. */
	__u32 at;
	__u8 protocol;
	/* Destination. */
	__u16 port;
};

/* 0 for UDP and TCP, in packets that have ports: later fragments do not. */
static __always_inline int find_transport(struct __sk_buff *skb, struct transport *found)
{
	__be16 type, port;

	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_proto), &type, sizeof(type)))
		return -1;
	if (type == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.frag_off & bpf_htons(0x1fff))
			return -1;
		found->at = ETH_HLEN + ip.ihl * 4;
		found->protocol = ip.protocol;
	} else if (type == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return -1;
		found->at = ETH_HLEN + sizeof(ip);
		found->protocol = ip.nexthdr;
	} else {
		return -1;
	}
	if (found->protocol != IPPROTO_UDP && found->protocol != IPPROTO_TCP)
		return -1;
	/* Both have it in the same place. */
	if (bpf_skb_load_bytes(skb, found->at + offsetof(struct udphdr, dest), &port, sizeof(port)))
		return -1;
	found->port = bpf_ntohs(port);
	return 0;
}

#endif
