import { writeFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import t from 'tap';
import { formatIpPrefix } from '../../core/net/ip-prefix.ts';
import { decodeAddress } from '../../core/netlink/rtnetlink/address.ts';
import { decodeLink } from '../../core/netlink/rtnetlink/link.ts';
import { decodeRoute, type NextHop, type Route } from '../../core/netlink/rtnetlink/route.ts';
import type { Native } from '../../core/plugin/native.ts';
import { Rtnetlink, type Answer } from '../../plugins/netlink/index.ts';
import { inNamespace, ipJson, loadSystemCalls, run } from './netlink-namespace.ts';

const SETUP: readonly string[] = [
  'link add va address 02:00:00:00:00:0a type veth peer name vb address 02:00:00:00:00:0b',
  'link add br7 type bridge',
  'tuntap add tun7 mode tun',
  'tuntap add tap7 mode tap',
  'link set tap7 master br7',
  'link set va up',
  'link set vb up',
  'link set br7 up',
  'link set tun7 up mtu 1408',
  'address add 10.1.2.3/24 dev va',
  'address add 10.1.2.4/24 dev va label va:x',
  'address add fd00:1::3/64 dev va nodad',
  'address add 10.5.0.1 peer 10.5.0.2/32 dev vb',
  'address add 100.64.0.1/32 dev tun7',
  'address add fd00:2::1 peer fd00:2::2 dev tun7 nodad',
  'address add fe80::5/64 dev va nodad',
  'address add fd00:3::1/64 dev br7 nodad',
  'route add default via 10.1.2.1 dev va',
  'route add default via fd00:1::1 dev va',
  'route add 10.9.0.0/16 proto 186 metric 5 nexthop via 10.1.2.9 dev va weight 3 nexthop dev vb',
  'route add fd09::/48 proto 186 nexthop via fd00:1::9 dev va weight 3 nexthop via fd00:1::8 dev va',
  'route add 10.8.0.0/16 via inet6 fe80::1 dev va table 2680',
  'route add 10.7.0.0/16 dev tun7 proto 186 src 100.64.0.1',
  'route add fd07::/48 dev tun7 proto 186 metric 77',
  'route add blackhole 10.60.0.0/16 proto 186',
  'route add unreachable 10.61.0.0/16',
  'route add prohibit fd60::/48',
  'route add throw 10.62.0.0/16 table 2680',
  'route add 192.0.2.1 dev tun7 table 100',
];

const TYPES = [
  'unspecified',
  'unicast',
  'local',
  'broadcast',
  'anycast',
  'multicast',
  'blackhole',
  'unreachable',
  'prohibit',
  'throw',
];

async function compare(calls: Native): Promise<void> {
  // The kernel would make link-local addresses, and test them for duplicates, at a time of its own.
  writeFileSync('/proc/sys/net/ipv6/conf/default/addr_gen_mode', '1');
  for (const command of SETUP) run('ip', ...command.split(' '));
  await until('both ends of the veth have a carrier', () => {
    const rows = ipJson<RouteRow>('-6', 'route', 'show', 'table', 'local', 'type', 'multicast');
    return ['va', 'vb'].every((name) => rows.some(({ dev }) => dev === name));
  });
  const rtnetlink = valueOf(Rtnetlink.open(calls));
  const names = new Map(valueOf(rtnetlink.readLinks()).map(({ index, name }) => [index, name]));

  await t.test('reads the links that ip reads', async (t) => {
    const ours = valueOf(rtnetlink.readLinks()).map((link) => ({
      index: link.index,
      name: link.name,
      kind: link.kind,
      mtu: link.mtu,
      isUp: link.isUp,
      hasCarrier: link.hasCarrier,
      state: link.state.replaceAll('-', '').toUpperCase(),
      hardwareAddress: link.hardwareAddress,
      controller: names.get(link.controller ?? 0),
      lower: names.get(link.lower ?? 0),
    }));
    const theirs = ipJson<LinkRow>('link').map((row) => ({
      index: row.ifindex,
      name: row.ifname,
      kind: row.linkinfo?.info_kind,
      mtu: row.mtu,
      isUp: row.flags.includes('UP'),
      hasCarrier: row.flags.includes('LOWER_UP'),
      state: row.operstate,
      hardwareAddress: row.address,
      controller: row.master,
      lower: row.link,
    }));
    t.strictSame(ours, theirs);
    t.strictSame(
      theirs.map(({ kind }) => kind),
      [undefined, 'veth', 'veth', 'bridge', 'tun', 'tun'],
    );
    for (const link of valueOf(rtnetlink.readLinks())) {
      t.strictSame(valueOf(rtnetlink.readLink(link.name)), link, link.name);
    }
    t.match(rtnetlink.readLink('none-such'), { ok: false, refusal: { code: 'ENODEV' } });
  });

  await t.test('reads the addresses that ip reads', async (t) => {
    const ours = valueOf(rtnetlink.readAddresses()).map((address) => ({
      link: names.get(address.link),
      local: address.address.address as string,
      prefixlen: address.address.length,
      peer: address.peer as string | undefined,
      scope: address.scope,
      label: address.label,
      isTentative: (address.flags & 0x40) !== 0,
    }));
    const theirs = ipJson<AddressRow>('address').flatMap((row) =>
      row.addr_info.map((info) => ({
        link: row.ifname,
        local: info.local,
        prefixlen: info.prefixlen,
        peer: info.address,
        scope: Number(info.scope),
        label: info.label,
        isTentative: info.tentative === true,
      })),
    );
    t.strictSame(sorted(ours), sorted(theirs));
    t.ok(theirs.length >= 9);
    const index = valueOf(rtnetlink.readLink('vb')).index;
    t.strictSame(
      valueOf(rtnetlink.readAddresses({ link: index })),
      valueOf(rtnetlink.readAddresses()).filter(({ link }) => link === index),
    );
  });

  await t.test('reads the routes that ip reads', async (t) => {
    const describe = (hop: NextHop) =>
      `${names.get(hop.link ?? 0) ?? '-'} ${hop.gateway ?? '-'} ${hop.weight}`;
    const ours = valueOf(rtnetlink.readRoutes()).map((route) => ({
      destination: formatIpPrefix(route.destination),
      type: route.type as string,
      table: route.table,
      protocol: route.protocol,
      scope: route.scope,
      metric: route.metric,
      preferredSource: route.preferredSource as string | undefined,
      nextHops: route.nextHops.map(describe),
    }));
    const theirs = ([4, 6] as const).flatMap((family) =>
      ipJson<RouteRow>(`-${family}`, 'route', 'show', 'table', 'all').map((row) => ({
        destination: prefixText(row.dst, family),
        type: TYPES[Number(row.type)] ?? row.type,
        table: Number(row.table ?? 254),
        protocol: Number(row.protocol),
        scope: Number(row.scope),
        metric: row.metric ?? 0,
        preferredSource: row.prefsrc,
        nextHops: hopsOf(row),
      })),
    );
    t.strictSame(sorted(ours), sorted(theirs));
    t.ok(theirs.length > 30);
  });

  await t.test('reads the routes that a filter lets through', async (t) => {
    const all = valueOf(rtnetlink.readRoutes());
    const link = valueOf(rtnetlink.readLink('va')).index;
    const cases: [Parameters<Rtnetlink['readRoutes']>[0], (route: Route) => boolean][] = [
      [{ table: 2680 }, ({ table }) => table === 2680],
      [{ protocol: 186 }, ({ protocol }) => protocol === 186],
      [{ link }, ({ nextHops }) => nextHops.some((hop) => hop.link === link)],
      [{ table: 99_999 }, () => false],
      [{ family: 6 }, ({ destination }) => destination.address.includes(':')],
    ];
    for (const [filter, passes] of cases) {
      const title = JSON.stringify(filter);
      t.strictSame(valueOf(rtnetlink.readRoutes(filter)), all.filter(passes), title);
    }
    t.equal(rtnetlink.stats.malformed, 0);
  });

  await t.test('reads what node-netlink receives', async (t) => {
    const dump = await nodeNetlink();
    if (typeof dump === 'string') {
      t.pass('node-netlink reads', { skip: dump });
      return;
    }
    const links = await dump(18, 16);
    t.strictSame(links.map((body) => decodeLink({ body })).filter(Boolean), [
      ...valueOf(rtnetlink.readLinks()),
    ]);
    const plain = links.map((payload) => ({
      index: payload.readInt32LE(4),
      name: attribute(payload, 16, 3)?.toString('latin1').replace('\0', ''),
      mtu: attribute(payload, 16, 4)?.readUInt32LE(),
      state: attribute(payload, 16, 16)?.readUInt8(),
    }));
    const states = [
      'unknown',
      'not-present',
      'down',
      'lower-layer-down',
      'testing',
      'dormant',
      'up',
    ];
    t.strictSame(
      valueOf(rtnetlink.readLinks()).map(({ index, name, mtu, state }) => ({
        index,
        name,
        mtu,
        state: states.indexOf(state),
      })),
      plain,
    );
    const addresses = (await dump(22, 8)).map((body) => decodeAddress({ body }));
    t.strictSame(sorted(addresses), sorted(valueOf(rtnetlink.readAddresses())));
    const routes = (await dump(26, 12)).map((body) => decodeRoute({ body }));
    t.strictSame(sorted(routes), sorted(valueOf(rtnetlink.readRoutes())));
  });

  rtnetlink.close();
  t.match(rtnetlink.readLinks(), { ok: false, refusal: { code: 'EBADF' } }, 'and no more');
}

interface LinkRow {
  ifindex: number;
  ifname: string;
  mtu: number;
  flags: string[];
  operstate: string;
  address?: string;
  master?: string;
  link?: string;
  linkinfo?: { info_kind: string };
}

interface AddressRow {
  ifname: string;
  addr_info: {
    local: string;
    address?: string;
    prefixlen: number;
    scope: string;
    label?: string;
    tentative?: boolean;
  }[];
}

interface HopRow {
  dev?: string;
  gateway?: string;
  via?: { host: string };
  weight?: number;
}

interface RouteRow extends HopRow {
  dst: string;
  type: string;
  table?: string;
  protocol: string;
  scope: string;
  metric?: number;
  prefsrc?: string;
  nexthops?: HopRow[];
}

function hopsOf(row: RouteRow): readonly string[] {
  const text = ({ dev, gateway, via, weight }: HopRow) =>
    `${dev ?? '-'} ${gateway ?? via?.host ?? '-'} ${weight ?? 1}`;
  if (row.nexthops !== undefined) return row.nexthops.map(text);
  return row.dev === undefined ? [] : [text(row)];
}

function prefixText(destination: string, family: 4 | 6): string {
  if (destination === 'default') return family === 4 ? '0.0.0.0/0' : '::/0';
  return destination.includes('/') ? destination : `${destination}/${family === 4 ? 32 : 128}`;
}

/** Returns a function that dumps with npm's node-netlink and gives the raw bodies, or why it cannot. */
async function nodeNetlink(): Promise<
  string | ((type: number, header: number) => Promise<readonly Buffer[]>)
> {
  const name: string = 'node-netlink';
  const loaded = await import(name).catch((error: unknown) => String(error));
  if (typeof loaded === 'string') return `needs npm rebuild syscall-napi buffer2address: ${loaded}`;
  const netlink = loaded.default;
  return async (type, header) => {
    const socket = await netlink.open({ family: 0 });
    const packets: { payload: Buffer }[] = await socket.talk({
      header: {
        nlmsg_type: BigInt(type),
        nlmsg_flags: netlink.NLM_F_REQUEST | netlink.NLM_F_ACK | netlink.NLM_F_DUMP,
      },
      payload: Buffer.alloc(header),
    });
    await socket.close();
    return packets.map(({ payload }) => payload);
  };
}

/** Finds an attribute without our codecs. */
function attribute(payload: Buffer, start: number, type: number): Buffer | undefined {
  for (let at = start; at + 4 <= payload.length;) {
    const length = payload.readUInt16LE(at);
    if (payload.readUInt16LE(at + 2) === type) return payload.subarray(at + 4, at + length);
    at += (length + 3) & ~3;
  }
  return undefined;
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  for (let attempt = 0; !isSo(); attempt++) {
    if (attempt === 200) throw new Error(`waited in vain until ${what}`);
    await setTimeout(50);
  }
}

function sorted<Row>(rows: readonly Row[]): readonly Row[] {
  return [...rows].sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
}

function valueOf<Value>(answer: Answer<Value>): Value {
  if (!answer.ok) throw new Error(`${answer.refusal.code}: ${answer.refusal.message}`);
  return answer.value;
}

if (await inNamespace(import.meta.url)) await compare(await loadSystemCalls());
