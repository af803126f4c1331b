import fc from 'fast-check';
import t from 'tap';
import {
  keepFlows,
  NO_FLOWS,
  readKeptFlows,
  type KeptFlows,
} from '../../../core/engine/kept-sessions.ts';
import type { IpAddress } from '../../../core/net/ip-address.ts';
import { encodeUtf8 } from '../../../core/sansio/utf8.ts';

const address = (text: string) => text as IpAddress;
const FLOWS: KeptFlows = {
  sessions: [
    {
      role: 'gateway',
      peerId: 'shop',
      resource: 'crm',
      domain: 'crm.corp.example',
      protocol: 6,
      inside: { source: address('100.64.0.1'), port: 4000, destination: address('100.96.0.4') },
      outside: { source: address('100.64.0.1'), port: 4001, destination: address('10.9.0.5') },
      destinationPort: 443,
    },
  ],
  assignments: [
    {
      peer: 'shop',
      resource: 'crm',
      domain: 'crm.corp.example',
      proxies: [address('100.96.0.4')],
      addresses: [address('10.9.0.5')],
    },
  ],
};

function stored(flows: KeptFlows, unixMs: number): Uint8Array {
  const command = keepFlows(flows, unixMs);
  return command.type === 'store' ? command.bytes : new Uint8Array(0);
}

await t.test('flows that were kept lately are read as they were', async (t) => {
  t.same(readKeptFlows(stored(FLOWS, 1000), 61_000), FLOWS);
});

await t.test('older ones are not, nor those of a clock that was set back', async (t) => {
  t.same(readKeptFlows(stored(FLOWS, 1000), 1000 + 6 * 60_000), NO_FLOWS);
  t.same(readKeptFlows(stored(FLOWS, 1000), 0), NO_FLOWS);
});

await t.test('a damaged document gives what is whole in it, and never an error', async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      readKeptFlows(bytes, 0);
    }),
  );
  const json = fc.json();
  fc.assert(
    fc.property(json, json, (sessions, assignments) => {
      const text = `{"unixMs":0,"sessions":${sessions},"assignments":[${assignments}]}`;
      readKeptFlows(encodeUtf8(text), 0);
    }),
  );
  const text = new TextDecoder().decode(stored(FLOWS, 0)).replace('"100.96.0.4"', '"nowhere"');
  t.same(readKeptFlows(encodeUtf8(text), 0).sessions, [], 'a session without its address is none');
});
