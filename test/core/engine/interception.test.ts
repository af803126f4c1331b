import t from 'tap';
import type { Command } from '../../../core/engine/command.ts';
import { Interception } from '../../../core/engine/interception.ts';
import type { DnsListenFailure } from '../../../core/plugin/dns-listener.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import { configuration } from '../../sim/site.ts';

const CONFIGURATION = configuration({
  interface: { addresses: ['100.64.0.1/32'] },
  peers: [{ id: 'office', kind: 'culvert', publicKey: key(), allowedIps: ['100.64.0.2/32'] }],
  resources: [{ id: 'crm', type: 'dns', patterns: ['crm.example'], gateways: ['office'] }],
  site: { lans: ['br-lan'] },
  dns: { mode: 'redirect' },
});
const TENTATIVE = [
  { address: '[fd00::1]:53053', why: 'refused' },
] as unknown as readonly DnsListenFailure[];

function key(): string {
  return Buffer.alloc(32, 7).toString('base64');
}

function started(): Interception {
  const interception = new Interception();
  const { resources: used } = CONFIGURATION;
  interception.configure({ configuration: CONFIGURATION, used, servesNames: false });
  interception.listen();
  return interception;
}

function commandsOf(interception: Interception): readonly Command['type'][] {
  const types: Command['type'][] = [];
  for (let it = interception.pollCommand(); it; it = interception.pollCommand())
    types.push(it.type);
  return types;
}

function eventsOf(interception: Interception): readonly string[] {
  const types: string[] = [];
  for (let it = interception.pollEvent(); it; it = interception.pollEvent()) types.push(it.type);
  return types;
}

await t.test('queries are intercepted once they are listened for', async (t) => {
  const interception = started();
  t.same(commandsOf(interception), ['listen-dns']);
  interception.handleListening([], instantAt(0));
  t.same(commandsOf(interception), ['intercept-dns']);
  t.equal(interception.state.type, 'starting');
  interception.handleIntercepted(undefined, instantAt(0));
  t.equal(interception.state.type, 'intercepting');
  t.same(eventsOf(interception), ['dns-intercepting']);
  t.equal(interception.pollTimeout(), undefined);
});

await t.test(
  'an address that is not ready yet keeps no others from it, and is no news',
  async (t) => {
    const interception = started();
    commandsOf(interception);
    interception.handleListening(TENTATIVE, instantAt(0));
    t.same(commandsOf(interception), ['intercept-dns'], 'the others may answer');
    interception.handleIntercepted(undefined, instantAt(0));
    t.equal(interception.state.type, 'intercepting');
    t.equal(interception.pollTimeout()?.at, 2000);
    interception.handleTimeout(instantAt(2000));
    t.same(commandsOf(interception), ['listen-dns']);
    interception.handleListening([], instantAt(2000));
    interception.handleIntercepted(undefined, instantAt(2000));
    t.same(eventsOf(interception), ['dns-intercepting']);
    t.equal(interception.pollTimeout(), undefined);
  },
);

await t.test('what does not go away is told once, and tried for ever', async (t) => {
  const interception = started();
  const failure = { why: 'no-answer', detail: 'nobody answers' } as const;
  const told: string[] = [];
  let now = instantAt(0);
  for (let round = 0; round < 5; round++) {
    interception.handleListening([], now);
    interception.handleIntercepted(failure, now);
    told.push(...eventsOf(interception));
    now = interception.pollTimeout()?.at ?? instantAt(-1);
    t.ok(now > 0, 'it is tried again');
    interception.handleTimeout(now);
  }
  t.same(told, ['dns-not-intercepted']);
  t.match(interception.state, { type: 'failed', ...failure });
  interception.handleListening([], now);
  interception.handleIntercepted(undefined, now);
  t.same(eventsOf(interception), ['dns-intercepting']);
});

await t.test('what an earlier run left is taken back, even where nothing is wanted', async (t) => {
  const interception = new Interception();
  interception.configure({ configuration: CONFIGURATION, used: [], servesNames: false });
  interception.listen();
  t.same(commandsOf(interception), ['intercept-dns']);
  interception.listen();
  t.same(commandsOf(interception), [], 'once');
});
