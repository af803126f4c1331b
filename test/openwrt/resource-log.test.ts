import t from 'tap';
import { nullLog, type Log, type LogFields, type Severity } from '../../core/sansio/log.ts';
import { logResourceEvent } from '../../openwrt/resource-log.ts';

type ResourceEvent = Parameters<typeof logResourceEvent>[1];

interface Line {
  readonly severity: Severity;
  readonly message: string;
  readonly fields: LogFields;
}

/** Names and addresses that events tell of. */
const PRIVATE = ['192.0.2.53', 'dns.example', '192.168.1.1', '100.64.0.2', '10.9.0.5', 'crm'];

const EXHAUSTED = { type: 'proxies-exhausted', capacity: 4, removed: 1 } as const;

const EVENTS: readonly ResourceEvent[] = [
  { type: 'dns-intercepting', mode: 'redirect' },
  ...(['not-permitted', 'no-answer', 'no-dnsmasq', 'refused'] as const).map(
    (why) =>
      ({
        type: 'dns-not-intercepted',
        mode: 'dnsmasq',
        why,
        detail: why === 'refused' ? 'dnsmasq: cannot listen at 192.168.1.1' : 'in words',
      }) as const,
  ),
  ...(['port-taken', 'not-permitted', 'refused'] as const).flatMap((why) =>
    ['192.168.1.1:53053', '100.64.0.2:53535'].map(
      (address) => ({ type: 'dns-not-listening', address, why }) as const,
    ),
  ),
  { type: 'upstream-dead', upstream: '192.0.2.53:53' },
  { type: 'upstream-alive', upstream: 'https://dns.example:443/dns-query' },
  EXHAUSTED,
  ...(['refused', 'not-resolved', 'no-answer'] as const).map(
    (why) => ({ type: 'resource-failed', peer: 'gateway', resource: 'web', why }) as const,
  ),
  { type: 'authorization-ended', peer: 'client', resource: 'web', why: 'expired' },
  {
    type: 'address-changed',
    peer: 'client',
    domain: 'crm.corp.example',
    proxyIp: '100.96.0.1',
    oldIp: '10.9.0.5',
    newIp: undefined,
  },
  {
    type: 'ruleset-failed',
    failures: [{ path: 'element 10.9.0.5 of map inet culvert names', why: 'Invalid argument' }],
  },
];

await t.test('names and addresses stay at debug', async (t) => {
  for (const event of EVENTS) {
    for (const line of linesOf(event).filter(({ severity }) => severity !== 'debug')) {
      const text = JSON.stringify(line);
      t.same(
        PRIVATE.filter((word) => text.includes(word)),
        [],
        text,
      );
    }
  }
});

await t.test('whoever reads at debug learns them', async (t) => {
  const told = JSON.stringify(EVENTS.flatMap(linesOf).filter((it) => it.severity === 'debug'));
  for (const word of PRIVATE) t.ok(told.includes(word), word);
});

await t.test('what has to be mended is told with a cure', async (t) => {
  for (const event of EVENTS) {
    const isMended = event.type === 'resource-failed';
    for (const line of linesOf(event)) {
      if (line.severity !== 'warn' && !isMended) continue;
      t.match(line.fields, { cure: / / }, JSON.stringify(line));
    }
  }
});

await t.test('the cure is that of the cause', async (t) => {
  const cureOf = (event: ResourceEvent) => linesOf(event)[0]?.fields['cure'];
  const listening = (address: string) =>
    cureOf({ type: 'dns-not-listening', address, why: 'port-taken' });
  t.equal(listening('192.168.1.1:53053'), 'choose a dns.listenPort that is free');
  t.match(listening('[fd00::2]:53535'), /stop .* port 53535/, 'which nobody can choose');
  const failed = (why: string) =>
    cureOf({ type: 'resource-failed', peer: 'gateway', resource: 'web', why });
  t.match(failed('refused'), /authorized/);
  t.match(failed('not-resolved'), /resolver/);
  t.match(failed('no-answer'), /running/);
});

await t.test('why queries do not come is told in our own words', async (t) => {
  const detail = 'nobody answers at 53053 on: br-lan';
  const event = {
    type: 'dns-not-intercepted',
    mode: 'redirect',
    why: 'no-answer',
    detail,
  } as const;
  const [line] = linesOf(event);
  t.match(line, { severity: 'warn', fields: { cause: 'no-answer', detail, cure: /site\.lans/ } });
});

function linesOf(event: ResourceEvent): readonly Line[] {
  const lines: Line[] = [];
  const write =
    (severity: Severity): Log['info'] =>
    (message, fields = {}) =>
      void lines.push({ severity, message, fields });
  logResourceEvent(
    { ...nullLog, debug: write('debug'), info: write('info'), warn: write('warn') },
    event,
  );
  return lines;
}
