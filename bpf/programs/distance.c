// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * XDP: answers nearest-neighbour queries over the hot vectors of a store where the packet arrives.
 *
 * A query is a UDP packet to one port of this machine whose payload begins with "RVFQ"; everything else passes, look-ups
 * for the filter and what other machines are asked among it. Vectors and query are integers, so that the order of the answer is exact: raw = bias - 2 * dot, where bias is the squared norm for squared L2
 * and 0 for the other metrics. An answer is never longer than its query (which is padded by who sends it), so that a forged
 * sender gains nothing.
 */
#include "rvf.h"

struct config {
	__u32 count;
	__u32 dim;
	/* Bits of an f64: what one step of a code is. */
	__u64 step;
	__u32 epoch;
	__u16 port;
	__u8 metric;
	/* Whether the interface has an address of Ethernet. */
	__u8 has_mac;
	__u64 file_id[2];
	__u8 mac[ETH_ALEN];
	__u16 unused;
};

/* Set before loading; the values here only make the program verifiable as it stands. */
const volatile struct config config = { .count = 256, .dim = 384, .port = 7474 };

/* Codes are 24 bits, stored with 2^23 added so that a load needs no sign extension; past the dimension they do not matter,
 * for the query is 0 there. Ascending by id: of equal distances the first one stays ahead. */
struct hot_vector {
	__u64 id;
	__s64 bias;
	__u32 codes[MAX_DIM];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct hot_vector);
} hot SEC(".maps");

/* What one packet needs. Its program is not interrupted by another packet on the same CPU. */
struct scratch {
	__s64 query[MAX_DIM];
	__u8 packet[MAX_DIM * 3 + 8];
	struct answer answer;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

enum counter { ANSWERED, DESCRIBED, REFUSED, DROPPED, COUNTERS };

COUNT(COUNTERS)

struct scan {
	struct scratch *scratch;
	/* 2^23 times the sum of the query, which the products with stored codes have too much. */
	__s64 excess;
	__u32 shift;
	__u32 k;
};

#define TERM(at) sum += (__u64)query[at] * codes[at];

static long scan_one(__u32 index, void *data)
{
	struct scan *scan = data;
	struct scratch *s = scan->scratch;
	struct hot_vector *v = bpf_map_lookup_elem(&hot, &index);
	__u32 dim = config.dim;
	__u64 sum = 0;
	__s64 raw;
	__u64 id;

	if (!v)
		return 1;
	for (__u32 i = 0; i < MAX_DIM; i += 8) {
		const __s64 *query = &s->query[i];
		const __u32 *codes = &v->codes[i];

		if (i >= dim)
			break;
		TERM(0) TERM(1) TERM(2) TERM(3) TERM(4) TERM(5) TERM(6) TERM(7)
	}
	raw = v->bias - (((__s64)sum - scan->excess) << scan->shift);
	id = v->id;

	/* Insertion from the end of the sorted results. */
	__u32 at = scan->k - 1;

	if (at >= MAX_K || raw >= s->answer.results[at].raw)
		return 0;
	for (int moves = 1; moves < MAX_K; moves++) {
		if (at == 0 || at >= MAX_K || raw >= s->answer.results[at - 1].raw)
			break;
		s->answer.results[at] = s->answer.results[at - 1];
		at -= 1;
	}
	if (at < MAX_K) {
		s->answer.results[at].id = id;
		s->answer.results[at].raw = raw;
	}
	return 0;
}

struct unpack {
	struct scratch *scratch;
	__s64 sum;
};

static __always_inline __s64 sign24(__u32 value)
{
	return (__s64)((__u64)value << 40) >> 40;
}

/* Components of one width, sign-extended and scaled to 24 bits. */
#define UNPACK(name, stride, value)                                              \
	static __always_inline __s64 name(struct scratch *s)                     \
	{                                                                        \
		__u32 dim = config.dim;                                          \
		__s64 sum = 0;                                                   \
                                                                                 \
		for (__u32 i = 0; i < MAX_DIM; i++) {                            \
			const __u8 *p = &s->packet[i * stride];                  \
			__s64 code;                                              \
                                                                                 \
			if (i >= dim)                                            \
				break;                                           \
			code = sign24(value);                                    \
			s->query[i] = code;                                      \
			sum += code;                                             \
		}                                                                \
		return sum;                                                      \
	}

UNPACK(unpack1, 1, (__u32)p[0] << 16)
UNPACK(unpack2, 2, (__u32)p[0] << 8 | (__u32)p[1] << 16)
UNPACK(unpack3, 3, (__u32)p[0] | (__u32)p[1] << 8 | (__u32)p[2] << 16)

/* Where the headers of a packet lie, and what changes when it goes back. */
struct frame {
	__u32 payload;
	__u32 payload_len;
	__u32 v6;
};

/* The answer takes the place of the query: addresses and ports change sides, lengths and checksums follow. */
static __always_inline int turn(struct xdp_md *ctx, const struct frame *frame, struct scratch *s, __u32 len)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct udphdr *udp;
	__u8 mac[ETH_ALEN];
	__u16 udp_len = bpf_htons(len + sizeof(*udp));
	__be16 port;
	__u32 total;

	if (data + sizeof(*eth) > end)
		return XDP_DROP;
	__builtin_memcpy(mac, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, mac, ETH_ALEN);
	if (frame->v6) {
		struct ipv6hdr *ip = data + sizeof(*eth);
		struct in6_addr address;
		/* The pseudo-header's length and protocol. */
		__be32 pseudo[2] = { bpf_htonl(len + sizeof(*udp)), bpf_htonl(IPPROTO_UDP) };
		__s64 sum;

		udp = (void *)(ip + 1);
		if ((void *)(udp + 1) > end)
			return XDP_DROP;
		address = ip->saddr;
		ip->saddr = ip->daddr;
		ip->daddr = address;
		ip->hop_limit = 64;
		ip->payload_len = udp_len;
		port = udp->source;
		udp->source = udp->dest;
		udp->dest = port;
		udp->len = udp_len;
		udp->check = 0;
		sum = bpf_csum_diff(0, 0, (__be32 *)&ip->saddr, 32, 0);
		sum = bpf_csum_diff(0, 0, pseudo, sizeof(pseudo), sum);
		sum = bpf_csum_diff(0, 0, (__be32 *)udp, sizeof(*udp), sum);
		KEEP(len);
		if (len < ANSWER_HEAD || len > sizeof(s->answer))
			return XDP_DROP;
		sum = bpf_csum_diff(0, 0, (__be32 *)&s->answer, len & ~3u, sum);
		sum = (sum & 0xffff) + (sum >> 16 & 0xffff);
		sum = (sum & 0xffff) + (sum >> 16);
		sum = ~sum & 0xffff;
		udp->check = sum ? (__u16)sum : 0xffff;
		total = sizeof(*eth) + sizeof(*ip) + sizeof(*udp) + len;
	} else {
		struct iphdr *ip = data + sizeof(*eth);
		__be32 address;
		__u32 sum = 0;

		udp = (void *)(ip + 1);
		if ((void *)(udp + 1) > end)
			return XDP_DROP;
		address = ip->saddr;
		ip->saddr = ip->daddr;
		ip->daddr = address;
		ip->ttl = 64;
		ip->tot_len = bpf_htons(len + sizeof(*ip) + sizeof(*udp));
		ip->check = 0;
#pragma unroll
		for (int i = 0; i < 10; i++)
			sum += ((__u16 *)ip)[i];
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		ip->check = (__u16)~sum;
		port = udp->source;
		udp->source = udp->dest;
		udp->dest = port;
		udp->len = udp_len;
		/* IPv4 leaves it open; the frame has a checksum of its own. */
		udp->check = 0;
		total = sizeof(*eth) + sizeof(*ip) + sizeof(*udp) + len;
	}
	KEEP(len);
	if (len < ANSWER_HEAD || len > sizeof(s->answer))
		return XDP_DROP;
	if (bpf_xdp_store_bytes(ctx, frame->payload, &s->answer, len))
		return XDP_DROP;
	if (bpf_xdp_adjust_tail(ctx, (int)total - (int)((long)end - (long)data)))
		return XDP_DROP;
	return XDP_TX;
}

/* Whether a frame was sent to this interface, by one machine. An answer to others would be a second one, in another's name, or
 * would go to everybody. */
static __always_inline int is_for_us(const struct ethhdr *eth)
{
	if ((eth->h_dest[0] | eth->h_source[0]) & 1)
		return 0;
	if (!config.has_mac)
		return 1;
	for (int i = 0; i < ETH_ALEN; i++)
		if (eth->h_dest[i] != config.mac[i])
			return 0;
	return 1;
}

/* Addresses of more than one machine: 224.0.0.0 and above, and ff00::/8. */
#define FIRST_OF_MANY_V4 224
#define FIRST_OF_MANY_V6 0xff

SEC("xdp")
int rvf_distance(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct frame frame = {};
	struct udphdr *udp;
	struct query *q;
	struct query query;
	struct scratch *s;
	__u32 zero = 0;
	__u32 length;
	/* What IP says that there is of UDP. */
	__u32 carried;
	__u8 status = STATUS_OK;

	if (data + sizeof(*eth) > end)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + sizeof(*eth);

		if ((void *)(ip + 1) > end || ip->ihl != 5 || ip->protocol != IPPROTO_UDP ||
		    ip->frag_off & bpf_htons(REFUSE_FRAGMENTS))
			return XDP_PASS;
		if ((bpf_ntohl(ip->daddr) >> 24) >= FIRST_OF_MANY_V4 || (bpf_ntohl(ip->saddr) >> 24) >= FIRST_OF_MANY_V4)
			return XDP_PASS;
		carried = bpf_ntohs(ip->tot_len);
		if (carried < sizeof(*ip))
			return XDP_PASS;
		carried -= sizeof(*ip);
		udp = (void *)(ip + 1);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + sizeof(*eth);

		if ((void *)(ip + 1) > end || ip->nexthdr != IPPROTO_UDP)
			return XDP_PASS;
		if (ip->daddr.s6_addr[0] == FIRST_OF_MANY_V6 || ip->saddr.s6_addr[0] == FIRST_OF_MANY_V6)
			return XDP_PASS;
		carried = bpf_ntohs(ip->payload_len);
		udp = (void *)(ip + 1);
		frame.v6 = 1;
	} else {
		return XDP_PASS;
	}
	q = (void *)(udp + 1);
	if ((void *)(q + 1) > end || udp->dest != bpf_htons(config.port) || q->magic != MAGIC_QUERY)
		return XDP_PASS;
	length = bpf_ntohs(udp->len);
	/* An answer may be as long as the payload that UDP tells of, so that has to have come. */
	if (!is_for_us(eth) || length > carried)
		return XDP_PASS;
	/* The filter's, which may look at the same port. */
	if (q->version == WIRE_VERSION && q->op == OP_LOOKUP)
		return XDP_PASS;
	frame.payload = (long)q - (long)data;
	/* No room for an answer that says what is wrong. */
	if (length < sizeof(*udp) + ANSWER_HEAD || (void *)udp + length > end) {
		count(DROPPED);
		return XDP_DROP;
	}
	frame.payload_len = length - sizeof(*udp);
	__builtin_memcpy(&query, q, sizeof(query));

	s = bpf_map_lookup_elem(&scratch, &zero);
	if (!s)
		return XDP_PASS;
	s->answer.magic = MAGIC_ANSWER;
	s->answer.version = WIRE_VERSION;
	s->answer.op = query.op;
	s->answer.metric = config.metric;
	s->answer.dim = config.dim;
	s->answer.k = 0;
	s->answer.token = query.token;
	s->answer.count = config.count;
	s->answer.epoch = config.epoch;
	s->answer.step = config.step;

	__u32 k = query.k;
	__u32 bytes = config.dim * query.width;

	if (query.version != WIRE_VERSION) {
		status = STATUS_VERSION;
	} else if (query.op == OP_DESCRIBE) {
		if (frame.payload_len < ANSWER_HEAD + 16) {
			status = STATUS_SHORT;
		} else {
			s->answer.results[0].id = config.file_id[0];
			s->answer.results[0].raw = config.file_id[1];
			s->answer.status = STATUS_OK;
			count(DESCRIBED);
			return turn(ctx, &frame, s, ANSWER_HEAD + 16);
		}
	} else if (query.op != OP_NEAREST) {
		status = STATUS_OP;
	} else if (query.dim != config.dim) {
		status = STATUS_DIMENSION;
	} else if (k == 0 || k > MAX_K) {
		status = STATUS_K;
	} else if (query.width == 0 || query.width > 3) {
		status = STATUS_WIDTH;
	} else if (query.shift > 5) {
		status = STATUS_SHIFT;
	} else if (frame.payload_len < sizeof(query) + bytes ||
		   frame.payload_len < ANSWER_HEAD + k * sizeof(struct result)) {
		status = STATUS_SHORT;
	}
	s->answer.status = status;
	if (status != STATUS_OK) {
		count(REFUSED);
		return turn(ctx, &frame, s, ANSWER_HEAD);
	}

	KEEP(bytes);
	if (bytes == 0 || bytes > MAX_DIM * 3)
		return XDP_DROP;
	if (bpf_xdp_load_bytes(ctx, frame.payload + sizeof(query), s->packet, bytes))
		return XDP_DROP;

	struct scan scan = { .scratch = s, .shift = query.shift + 1, .k = k };

	if (query.width == 3)
		scan.excess = unpack3(s) << 23;
	else if (query.width == 2)
		scan.excess = unpack2(s) << 23;
	else
		scan.excess = unpack1(s) << 23;
#pragma unroll
	for (int i = 0; i < MAX_K; i++)
		s->answer.results[i].raw = 0x7fffffffffffffffLL;
	bpf_loop(config.count, scan_one, &scan, 0);
	if (k > config.count)
		k = config.count;
	if (k > MAX_K)
		k = MAX_K;
	s->answer.k = k;
	count(ANSWERED);
	return turn(ctx, &frame, s, ANSWER_HEAD + k * sizeof(struct result));
}

char LICENSE[] SEC("license") = "MIT OR Apache-2.0";
