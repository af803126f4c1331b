import t from 'tap';
import {
  MOST_DOMAINS_PER_PEER,
  ResourceNat,
  type ResourceNatEvent,
} from '../../../core/nat/resource-nat.ts';
import { parseIpAddress, type IpAddress } from '../../../core/net/ip-address.ts';

const P4 = ['100.96.0.1', '100.96.0.2', '100.96.0.3', '100.96.0.4'].map(ip);
const P6 = ['fd00:1::1', 'fd00:1::2'].map(ip);
const CRM = { peer: 'branch', resource: 'crm', domain: 'crm.corp.example' };

await t.test('proxy i stands for address i of its family, cyclically', async (t) => {
  const { nat } = create();
  nat.assign({ ...CRM, proxies: [...P4, ...P6], addresses: ips('10.0.0.1 10.0.0.2 fd00:9::1') });
  t.same(
    P4.map((proxy) => nat.target('branch', proxy)?.address),
    ['10.0.0.1', '10.0.0.2', '10.0.0.1', '10.0.0.2'],
  );
  t.same(
    P6.map((proxy) => nat.target('branch', proxy)?.address),
    ['fd00:9::1', 'fd00:9::1'],
  );
  t.match(nat.target('branch', P4[0]!), { resource: 'crm', domain: 'crm.corp.example' });
  t.equal(nat.target('other', P4[0]!), undefined, 'of another peer');
});

await t.test('a family without records has targets without addresses', async (t) => {
  const { nat } = create();
  nat.assign({ ...CRM, proxies: [...P4, ...P6], addresses: ips('10.0.0.1') });
  t.match(nat.target('branch', P6[0]!), { resource: 'crm', address: undefined });
  t.ok(nat.target('branch', P6[0]!));
});

await t.test(
  'new flows use new addresses; under open sessions the change is told once',
  async (t) => {
    const { nat, open, events } = create();
    open.add(`branch ${P4[0]}`);
    nat.assign({ ...CRM, proxies: P4, addresses: ips('10.0.0.1') });
    t.same(events(), [], 'the first time nothing changes');
    nat.assign({ ...CRM, proxies: P4, addresses: ips('10.0.0.2') });
    t.equal(nat.target('branch', P4[0]!)?.address, '10.0.0.2');
    t.equal(nat.target('branch', P4[1]!)?.address, '10.0.0.2');
    t.same(events(), [
      {
        type: 'address-changed',
        peer: 'branch',
        domain: 'crm.corp.example',
        proxyIp: P4[0],
        oldIp: '10.0.0.1',
        newIp: '10.0.0.2',
      },
    ]);
    nat.assign({ ...CRM, proxies: P4, addresses: ips('10.0.0.2') });
    t.same(events(), []);
    nat.assign({ ...CRM, proxies: P4, addresses: [] });
    t.match(events(), [{ oldIp: '10.0.0.2', newIp: undefined }]);
  },
);

await t.test(
  'a re-resolution that changes nothing logs nothing, in whatever order it comes',
  async (t) => {
    const { nat, open, events } = create();
    for (const proxy of P4) open.add(`branch ${proxy}`);
    nat.assign({ ...CRM, proxies: P4, addresses: ips('10.0.0.1 10.0.0.2') });
    const before = P4.map((proxy) => nat.target('branch', proxy)?.address);
    nat.assign({ ...CRM, proxies: P4, addresses: ips('10.0.0.2 10.0.0.1') });
    nat.assign({ ...CRM, proxies: P4, addresses: ips('10.0.0.2 10.0.0.1 10.0.0.1') });
    t.same(
      P4.map((proxy) => nat.target('branch', proxy)?.address),
      before,
    );
    t.same(events(), []);
    nat.assign({ ...CRM, proxies: P4, addresses: ips('10.0.0.3 10.0.0.1') });
    t.match(events(), [
      { proxyIp: P4[0], oldIp: '10.0.0.1', newIp: '10.0.0.3' },
      { proxyIp: P4[1], oldIp: '10.0.0.2', newIp: '10.0.0.1' },
      { proxyIp: P4[2] },
      { proxyIp: P4[3] },
    ]);
  },
);

await t.test(
  'of more addresses than proxies some are not used, and may change unseen',
  async (t) => {
    const { nat, open, events } = create();
    open.add(`branch ${P4[0]}`);
    const proxies = P4.slice(0, 1);
    nat.assign({ ...CRM, proxies, addresses: ips('10.0.0.1 10.0.0.2') });
    nat.assign({ ...CRM, proxies, addresses: ips('10.0.0.3 10.0.0.1') });
    t.equal(nat.target('branch', P4[0]!)?.address, '10.0.0.1');
    t.same(events(), []);
  },
);

await t.test('two resources that resolve to the same address stay apart', async (t) => {
  const { nat } = create();
  const wiki = { peer: 'branch', resource: 'wiki', domain: 'wiki.corp.example' };
  nat.assign({ ...CRM, proxies: [P4[0]!], addresses: ips('10.0.0.1') });
  nat.assign({ ...wiki, proxies: [P4[1]!], addresses: ips('10.0.0.1') });
  t.match(nat.target('branch', P4[0]!), { resource: 'crm', address: '10.0.0.1' });
  t.match(nat.target('branch', P4[1]!), { resource: 'wiki', address: '10.0.0.1' });
});

await t.test('two resources that have the same name share its proxies', async (t) => {
  const { nat, events } = create();
  nat.assign({ ...CRM, proxies: P4, addresses: ips('10.0.0.1') });
  nat.assign({ ...CRM, resource: 'all', proxies: P4, addresses: ips('10.0.0.1') });
  t.match(nat.target('branch', P4[0]!), { domain: CRM.domain, address: '10.0.0.1' });
  t.same(events(), []);
});

await t.test('two clients may use the same proxy for different servers', async (t) => {
  const { nat } = create();
  nat.assign({ ...CRM, proxies: P4, addresses: ips('10.0.0.1') });
  nat.assign({
    ...CRM,
    peer: 'phone',
    domain: 'b.example',
    proxies: P4,
    addresses: ips('10.0.0.2'),
  });
  t.match(nat.target('branch', P4[0]!), { domain: 'crm.corp.example', address: '10.0.0.1' });
  t.match(nat.target('phone', P4[0]!), { domain: 'b.example', address: '10.0.0.2' });
});

await t.test('a proxy that goes to another name is released, with its sessions', async (t) => {
  const { nat, open, events } = create();
  for (const proxy of P4) open.add(`branch ${proxy}`);
  nat.assign({ ...CRM, proxies: P4.slice(0, 2), addresses: ips('10.0.0.1') });
  nat.assign({ ...CRM, domain: 'b.example', proxies: P4.slice(1, 3), addresses: ips('10.0.0.2') });
  t.same(events(), [{ type: 'released', peer: 'branch', proxyIp: P4[1] }]);
  t.match(nat.target('branch', P4[1]!), { domain: 'b.example' });
  t.match(nat.target('branch', P4[0]!), { domain: 'crm.corp.example' });
  nat.assign({ ...CRM, proxies: [P4[3]!], addresses: ips('10.0.0.1') });
  t.same(events(), [{ type: 'released', peer: 'branch', proxyIp: P4[0] }], 'not that of the other');
  t.match(nat.target('branch', P4[1]!), { domain: 'b.example' });
  nat.removePeer('branch');
  t.same(events().length, 3);
  t.same([...nat.entries()], []);
});

await t.test('the name assigned longest ago gives way to one too many', async (t) => {
  const { nat } = create();
  for (let n = 0; n <= MOST_DOMAINS_PER_PEER; n++) {
    const proxies = [ip(`100.96.${n >> 8}.${n & 255}`)];
    nat.assign({ ...CRM, domain: `n${n}.example`, proxies, addresses: ips('10.0.0.1') });
    if (n === 1) {
      nat.assign({ ...CRM, domain: 'n0.example', proxies: [ip('100.96.0.0')], addresses: [] });
    }
  }
  t.ok(nat.target('branch', ip('100.96.0.0')));
  t.equal(nat.target('branch', ip('100.96.0.1')), undefined);
});

await t.test('a name with open sessions does so last', async (t) => {
  const { nat, open, events } = create();
  open.add('branch 100.96.0.0');
  for (let n = 0; n <= MOST_DOMAINS_PER_PEER; n++) {
    const proxies = [ip(`100.96.${n >> 8}.${n & 255}`)];
    nat.assign({ ...CRM, domain: `n${n}.example`, proxies, addresses: ips('10.0.0.1') });
  }
  t.ok(nat.target('branch', ip('100.96.0.0')));
  t.equal(nat.target('branch', ip('100.96.0.1')), undefined);
  t.same(events(), [], 'no session is ended');
});

function create(): {
  nat: ResourceNat;
  open: Set<string>;
  events: () => ResourceNatEvent[];
} {
  const open = new Set<string>();
  const nat = new ResourceNat({ hasOpenSession: (peer, proxy) => open.has(`${peer} ${proxy}`) });
  const events = (): ResourceNatEvent[] => {
    const polled: ResourceNatEvent[] = [];
    for (let event = nat.pollEvent(); event !== undefined; event = nat.pollEvent())
      polled.push(event);
    return polled;
  };
  return { nat, open, events };
}

function ips(list: string): IpAddress[] {
  return list.split(' ').map(ip);
}

function ip(text: string): IpAddress {
  const parsed = parseIpAddress(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}
