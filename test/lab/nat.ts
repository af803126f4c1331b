/**
 * Rule sets of nftables that make a router behave as the NATs and firewalls of the field do. The terms
 * are those of RFC 4787: a mapping is what an inner address looks like outside, filtering is who may
 * answer to it.
 */

/**
 * - `none`: public addresses, nothing filtered.
 * - `fullCone`: endpoint-independent mapping and filtering. Linux has no such NAT; the port is kept and
 *   all UDP from outside goes to the one host inside.
 * - `portRestricted`: the usual home router. Linux keeps the port, hence one mapping for all
 *   destinations; filtering is address- and port-dependent.
 * - `symmetric`: a mapping of random port per destination, address- and port-dependent filtering.
 * - `udpBlocked`: as `portRestricted`, but UDP does not pass.
 * - `only443ViaProxy`: nothing passes but TCP to `Wan.proxy` and to the broker of the fleet, without
 *   which a device would know of no peer.
 */
export type NatKind =
  'none' | 'fullCone' | 'portRestricted' | 'symmetric' | 'udpBlocked' | 'only443ViaProxy';

export interface NatRouter {
  readonly kind: NatKind;
  /** The device towards the Internet. */
  readonly outside: string;
  /** Address of the one host inside. */
  readonly inside: string;
  /** What `only443ViaProxy` lets pass: addresses and TCP ports. */
  readonly allowed: readonly { readonly address: string; readonly port: number }[];
}

/** The rules of a router in the syntax of `nft -f`; they replace those that it had before. */
export function natRules(router: NatRouter): string {
  return `
table ip nat
delete table ip nat
table ip nat {
  chain forward {
    type filter hook forward priority filter
    ${RULES[router.kind].forward(router).join('\n    ')}
  }
  chain input {
    # Without this the kernel answers and confirms the flow, and the mapping of the host inside, which
    # is about to send to the same peer, gets another port.
    type filter hook input priority filter
    iifname "${router.outside}" meta l4proto { tcp, udp } drop
  }
  chain prerouting {
    type nat hook prerouting priority dstnat
    ${RULES[router.kind].inward(router).join('\n    ')}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat
    ${RULES[router.kind].outward(router).join('\n    ')}
  }
}
`;
}

/**
 * Troubles of a line, apart from its NAT so that one can change without the other. They come first:
 * what is dropped here was never seen by the NAT.
 */
export function troubleRules(trouble: LineTrouble): string {
  const drop = trouble.isCut ? ['drop'] : [];
  const lose =
    trouble.lossPercent > 0 ? [`numgen random mod 100 < ${trouble.lossPercent} drop`] : [];
  return `
table ip trouble
delete table ip trouble
table ip trouble {
  chain forward {
    type filter hook forward priority filter - 10
    ${[...drop, ...lose].join('\n    ')}
  }
}
`;
}

export interface LineTrouble {
  /** Nothing passes in either direction; addresses and links stay. */
  readonly isCut: boolean;
  /** Of the packets in each direction, 0 to 100. */
  readonly lossPercent: number;
}

/** Drops UDP between pairs of networks, in both directions; TCP passes. */
export function blockRules(pairs: readonly (readonly [string, string])[]): string {
  const drops = pairs.flatMap(([one, other]) => [
    `ip saddr ${one} ip daddr ${other} meta l4proto udp drop`,
    `ip saddr ${other} ip daddr ${one} meta l4proto udp drop`,
  ]);
  return `
table ip block
delete table ip block
table ip block {
  chain forward {
    type filter hook forward priority filter
    ${drops.join('\n    ')}
  }
}
`;
}

interface Rules {
  /** Which packets pass. */
  readonly forward: (router: NatRouter) => readonly string[];
  /** Where packets from outside go. */
  readonly inward: (router: NatRouter) => readonly string[];
  /** What packets to outside look like. */
  readonly outward: (router: NatRouter) => readonly string[];
}

const ANSWERS = 'ct state established,related accept';
const keepPort: Rules['outward'] = ({ outside }) => [`oifname "${outside}" masquerade`];
const randomPort: Rules['outward'] = ({ outside }) => [
  `oifname "${outside}" masquerade random,fully-random`,
];
const answersOnly: Rules['forward'] = ({ outside }) => [ANSWERS, `iifname "${outside}" drop`];
const nothing = (): readonly string[] => [];

const RULES: Readonly<Record<NatKind, Rules>> = {
  none: { forward: nothing, inward: nothing, outward: nothing },
  fullCone: {
    forward: ({ outside }) => [`iifname "${outside}" ct state new meta l4proto != udp drop`],
    inward: ({ outside, inside }) => [`iifname "${outside}" meta l4proto udp dnat to ${inside}`],
    outward: keepPort,
  },
  portRestricted: { forward: answersOnly, inward: nothing, outward: keepPort },
  symmetric: { forward: answersOnly, inward: nothing, outward: randomPort },
  udpBlocked: {
    forward: (router) => ['meta l4proto udp drop', ...answersOnly(router)],
    inward: nothing,
    outward: keepPort,
  },
  only443ViaProxy: {
    forward: ({ allowed }) => [
      ANSWERS,
      ...allowed.map(({ address, port }) => `ip daddr ${address} tcp dport ${port} accept`),
      'drop',
    ],
    inward: nothing,
    outward: keepPort,
  },
};
