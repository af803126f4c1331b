import { parseIpAddress } from '../../core/net/ip-address.ts';
import { parseIpPrefix } from '../../core/net/ip-prefix.ts';
import { Priority } from '../../core/netlink/nftables/chain.ts';
import {
  addressData,
  concatenate,
  interfaceData,
  markData,
  prefixRange,
  protocolData,
  serviceData,
} from '../../core/netlink/nftables/data-type.ts';
import type { SetElement } from '../../core/netlink/nftables/element.ts';
import {
  connectionAddress,
  connectionDirection,
  connectionPort,
  connectionState,
  connectionStatus,
  destination,
  destinationIs,
  destinationPort,
  field,
  hasConnectionMark,
  hasMark,
  icmpType,
  inputInterface,
  isFamily,
  isIn,
  isNotIn,
  isProtocol,
  isSpoofed,
  outputInterface,
  Protocol,
  source,
  sourcePort,
  transportBytes,
} from '../../core/netlink/nftables/match.ts';
import {
  accept,
  clampMss,
  counter,
  countIn,
  decide,
  dnat,
  drop,
  goto,
  jump,
  leave,
  limit,
  log,
  masquerade,
  named,
  natByMap,
  notrack,
  prefixNat,
  prefixNatByMap,
  redirectTo,
  reject,
  resetTcp,
  rule,
  saveMark,
  setConnectionMark,
  setMark,
  setUdpPort,
  setZone,
  snat,
  useTimeout,
} from '../../core/netlink/nftables/statement.ts';
import type { WantedTable } from '../../core/netlink/nftables/wanted-ruleset.ts';

export const ip = (text: string) => {
  const parsed = parseIpAddress(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
};

export const prefix = (text: string) => {
  const parsed = parseIpPrefix(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
};

export const address = (text: string) => addressData(ip(text));

export const range = (text: string): Pick<SetElement, 'key' | 'lastKey'> => {
  const { first, last } = prefixRange(prefix(text));
  return { key: first, lastKey: last };
};

const { tcp, udp } = Protocol;

/** One of everything that we can write. */
export const EVERYTHING: WantedTable = {
  family: 'inet',
  name: 'everything',
  comment: 'made by a test',
  objects: [
    { kind: 'counter', name: 'seen' },
    {
      kind: 'timeout',
      name: 'dns',
      family: 4,
      protocol: udp,
      seconds: { unreplied: 10, replied: 20 },
    },
  ],
  sets: [
    {
      name: 'nets',
      comment: 'some networks',
      key: ['ipv4_addr'],
      isInterval: true,
      elements: [
        { ...range('10.0.0.0/8') },
        { ...range('11.0.0.0/8'), comment: 'the next one' },
        { key: address('192.168.0.5') },
        { ...range('240.0.0.0/4') },
      ],
    },
    {
      name: 'nets6',
      key: ['ipv6_addr'],
      isInterval: true,
      elements: [{ ...range('fd00::/8') }],
    },
    {
      name: 'services',
      key: ['inet_proto', 'inet_service'],
      isInterval: true,
      elements: [
        {
          key: concatenate(protocolData(tcp), serviceData(80)),
          lastKey: concatenate(protocolData(tcp), serviceData(90)),
        },
        { key: concatenate(protocolData(udp), serviceData(53)) },
      ],
    },
    {
      name: 'links',
      key: ['ifname'],
      elements: [{ key: interfaceData('lo') }, { key: interfaceData('wg0') }],
    },
    {
      name: 'guests',
      key: ['ipv6_addr'],
      timeoutMs: 3_600_000,
      elements: [{ key: address('fd00::1') }, { key: address('fd00::2'), timeoutMs: 60_000 }],
    },
    {
      name: 'names',
      key: ['ipv4_addr', 'inet_service'],
      value: { type: 'data', fields: ['ipv4_addr', 'inet_service'] },
      elements: [
        {
          key: concatenate(address('10.0.0.1'), serviceData(53)),
          value: concatenate(address('10.0.0.2'), serviceData(5353)),
          comment: 'db.internal',
        },
      ],
    },
    {
      name: 'proxies',
      key: ['ipv6_addr', 'ipv6_addr'],
      value: { type: 'data', fields: ['ipv6_addr'] },
      elements: [
        { key: concatenate(address('fd00::1'), address('fd00::2')), value: address('fd00::3') },
      ],
    },
    {
      name: 'sites',
      key: ['ipv4_addr'],
      value: { type: 'data', fields: ['ipv4_addr'], isRange: true },
      isInterval: true,
      elements: [
        {
          ...range('10.1.0.0/16'),
          value: concatenate(address('10.2.0.0'), address('10.2.255.255')),
        },
      ],
    },
    {
      name: 'decisions',
      key: ['mark'],
      value: { type: 'verdict' },
      elements: [
        { key: markData(1), value: { type: 'accept' } },
        { key: markData(2), value: { type: 'jump', chain: 'common' } },
        { key: markData(3), value: { type: 'goto', chain: 'common' } },
      ],
    },
    {
      name: 'counted',
      key: ['ipv4_addr'],
      value: { type: 'object', kind: 'counter' },
      elements: [{ key: address('1.2.3.4'), value: 'seen' }],
    },
    { name: 'learned', key: ['ipv4_addr'], isDynamic: true, timeoutMs: 60_000, size: 100 },
  ],
  chains: [
    { name: 'common', rules: [rule(leave)] },
    {
      name: 'raw',
      base: { type: 'filter', hook: 'prerouting', priority: Priority.raw },
      rules: [
        named(
          'stun',
          destinationPort(udp, 51820),
          transportBytes(8, Uint8Array.of(2), '<'),
          transportBytes(12, Uint8Array.of(0x21, 0x12, 0xa4, 0x42)),
          notrack,
          setUdpPort('destination', 3478),
        ),
        rule(isFamily(4), isIn('nets', field.ipSource), counter, drop),
        rule(connectionState('invalid'), drop),
        rule(connectionState('established', 'related'), accept),
        rule(inputInterface('wg*'), accept),
        rule(isIn('links', field.inputInterface), accept),
        rule(isIn('services', field.protocol, field.destinationPort), accept),
        rule(decide('decisions', field.mark)),
        rule(hasMark(0x1200, 0xff00), setMark(0x3400, 0xff00)),
        rule(destinationIs('local'), accept),
        rule(isSpoofed(), drop),
        rule(destinationPort(tcp, { first: 1000, last: 2000 }), accept),
        rule(limit(5, 1, 10), log('a ', 6)),
        rule(source(prefix('10.0.0.0/8')), accept),
        rule(source(prefix('10.0.0.0/9')), accept),
        rule(destination(prefix('fd00::/8')), accept),
        rule(isFamily(6), isNotIn('nets6', field.ip6Source), jump('common')),
        rule(useTimeout('dns')),
        rule(countIn('seen')),
        rule(icmpType(4, 8), accept),
        rule(isProtocol(udp), compareDirection(), accept),
        rule(hasConnectionMark(5), accept),
        rule(saveMark),
        rule(setConnectionMark(1, 0xff)),
        rule(connectionDirection('original'), accept),
        rule(connectionStatus('dnat'), accept),
        rule(setZone(4)),
        rule(sourcePort(udp, 68), goto('common')),
      ],
    },
    {
      name: 'forwarded',
      base: { type: 'filter', hook: 'forward', priority: Priority.filter, policy: 'drop' },
      rules: [
        rule(destinationPort(tcp, 5), resetTcp),
        rule(clampMss('route')),
        rule(clampMss(1360)),
        rule(reject('prohibited')),
      ],
    },
    {
      name: 'out',
      base: { type: 'nat', hook: 'postrouting', priority: Priority.sourceNat },
      rules: [
        rule(outputInterface('eth0'), masquerade('random', 'persistent')),
        rule(isFamily(4), snat({ address: ip('10.0.0.1') })),
        rule(source(prefix('fd00::/64')), prefixNat('snat', prefix('fd01::/64'))),
        rule(isFamily(4), prefixNatByMap('snat', 4, 'sites', [field.ipSource])),
        rule(
          isFamily(4),
          snat({ address: ip('10.0.0.1'), lastAddress: ip('10.0.0.9'), options: ['random'] }),
        ),
      ],
    },
    {
      name: 'in',
      base: { type: 'nat', hook: 'prerouting', priority: Priority.destinationNat },
      rules: [
        rule(
          isFamily(4),
          isProtocol(udp),
          natByMap(
            'dnat',
            4,
            'names',
            [field.ipDestination, field.destinationPort],
            'address-and-port',
          ),
        ),
        rule(isFamily(6), natByMap('dnat', 6, 'proxies', [field.ip6Source, field.ip6Destination])),
        rule(destinationPort(udp, 53), redirectTo(5353)),
        rule(isProtocol(tcp), dnat({ address: ip('10.0.0.1'), port: 80 })),
        rule(isFamily(6), dnat({ address: ip('fd00::1') })),
      ],
    },
    {
      name: 'rerouted',
      base: { type: 'route', hook: 'output', priority: Priority.mangle },
      rules: [rule(accept)],
    },
  ],
};

function compareDirection() {
  return [
    ...[connectionPort('original', 'destination')].flatMap((port) => [
      port.load(0),
      { type: 'compare', from: 0, operator: '==', value: serviceData(53) } as const,
    ]),
    ...[connectionAddress('original', 'destination', 4)].flatMap((end) => [
      end.load(0),
      { type: 'compare', from: 0, operator: '==', value: address('10.0.0.1') } as const,
    ]),
  ];
}
