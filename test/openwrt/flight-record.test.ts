import { chmodSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { inspect } from 'node:util';
import t, { type Test } from 'tap';
import { parseConfiguration, type Configuration } from '../../core/config/configuration.ts';
import type { Input } from '../../core/engine/input.ts';
import { FlightRecorder } from '../../core/plugin/flight-recorder.ts';
import { encodeBase64 } from '../../core/sansio/base64.ts';
import { instantAt } from '../../core/sansio/instant.ts';
import { messageOf, writeFlightRecord } from '../../openwrt/flight-record.ts';
import { configurationJson, envelope } from '../core/fleet/fleet-scene.ts';
import { SeededRandom } from '../sim/seeded-random.ts';
import { shownForms } from '../secret-forms.ts';

const random = new SeededRandom(20_261_120);
const presharedKey = randomKey();
const privateKey = randomKey();
const publicKey = randomKey();
const json = {
  ...configurationJson(),
  peers: [
    {
      id: 'b',
      publicKey: encodeBase64(publicKey),
      presharedKey: encodeBase64(presharedKey),
      endpoint: '192.0.2.1:51820',
      allowedIps: ['10.98.0.0/16'],
    },
  ],
};
const desired = envelope(3, { configuration: json });
const inputs: readonly Input[] = [
  { type: 'configuration', configuration: configuration() },
  {
    type: 'control',
    // The client library hands out a Buffer, which has a JSON form of its own.
    event: { type: 'message', topic: 'culvert/1/acme/r1/desired', payload: Buffer.from(desired) },
  },
  {
    type: 'uapi-set',
    request: {
      type: 'set',
      privateKey,
      listenPort: 4500,
      fwmark: undefined,
      replacePeers: false,
      peers: [
        {
          publicKey,
          remove: false,
          updateOnly: true,
          presharedKey,
          endpoint: undefined,
          persistentKeepalive: undefined,
          replaceAllowedIps: false,
          allowedIps: [],
        },
      ],
    },
  },
  { type: 'resolved', peer: 'b', host: 'b.example', outcome: { ok: false, why: 'not-resolved' } },
];

await t.test('the forms of a secret are found where they are', async (t) => {
  const text = `{"body":"${encodeBase64(Buffer.from(JSON.stringify(json)))}"}`;
  t.match(shownForms(Buffer.from(encodeBase64(presharedKey)), text).join(), /base64 at \d/);
  t.same(shownForms(presharedKey, JSON.stringify(Buffer.from(presharedKey))), ['numbers']);
  t.same(shownForms(presharedKey, Buffer.from(presharedKey).toString('hex')), ['hex']);
  t.ok(shownForms(presharedKey, encodeBase64(presharedKey)).includes('base64 at 0'));
});

await t.test('a record tells what happened and no secret of it', async (t) => {
  const { text, record } = write(t, new Error('broken'));
  t.match(record, {
    error: { message: 'Error: broken', stack: [/^at .*flight-record/] },
    inputs: [
      {
        now: 0,
        input: {
          type: 'configuration',
          configuration: {
            peers: [
              {
                id: 'b',
                publicKey: encodeBase64(publicKey),
                hasPresharedKey: true,
                endpoint: '192.0.2.1:51820',
                allowedIps: ['10.98.0.0/16'],
              },
            ],
          },
        },
      },
      { input: { event: { topic: /desired$/, bytes: desired.length, sha256: /^[0-9a-f]{64}$/ } } },
      { input: { request: { setsPrivateKey: true, peers: [{ setsPresharedKey: true }] } } },
      { input: { type: 'resolved', peer: 'b' } },
    ],
  });
  for (const key of [presharedKey, privateKey]) {
    t.same(shownForms(key, text), []);
    t.same(shownForms(Buffer.from(encodeBase64(key)), text), []);
  }
  t.ok(shownForms(publicKey, text).length > 0, 'the public key is there');
});

await t.test('what an input gains later is not written', async (t) => {
  const [first] = inputs as [Extract<Input, { type: 'configuration' }>];
  const [peer] = first.configuration.peers;
  const gained = { ...first.configuration, peers: [{ ...peer, relaySecret: presharedKey }] };
  const input = { ...first, configuration: gained as unknown as Configuration, token: 'hush' };
  const { text } = write(t, new Error('broken'), [input]);
  t.notMatch(text, 'relaySecret');
  t.notMatch(text, 'hush');
});

await t.test('the text around an error of JSON is left out', async (t) => {
  let error: unknown;
  try {
    JSON.parse(`{"password": correct horse}`);
  } catch (caught) {
    error = caught;
  }
  t.match(inspect(error), /correct/, 'V8 shows it');
  t.notMatch(messageOf(error), /correct/);
  t.notMatch(write(t, error).text, /correct/);
});

await t.test('an older record is replaced, whatever its mode, and a link is not followed', (t) => {
  const directory = t.testdir({ elsewhere: 'theirs' });
  const socket = `${directory}/culvert.sock`;
  const path = `${socket}.flight-record.json`;
  writeFileSync(path, 'older');
  chmodSync(path, 0o644);
  t.equal(writeFlightRecord(socket, [], 'why'), path);
  t.equal(statSync(path).mode & 0o777, 0o600);
  t.match(readFileSync(path, 'utf8'), '"message":"why"');
  const linked = `${directory}/linked`;
  symlinkSync(`${directory}/elsewhere`, `${linked}.flight-record.json`);
  t.ok(writeFlightRecord(linked, [], 'why'));
  t.equal(readFileSync(`${directory}/elsewhere`, 'utf8'), 'theirs');
  t.equal(writeFlightRecord('/proc/culvert', [], 'why'), undefined, 'it cannot be written there');
  t.end();
});

function write(t: Test, error: unknown, given: readonly Input[] = inputs) {
  const recorder = new FlightRecorder<Input>(1024);
  given.forEach((input, i) => recorder.record(input, instantAt(i)));
  const path = writeFlightRecord(`${t.testdir()}/culvert.sock`, recorder.inputs(), error) ?? '';
  t.equal(statSync(path).mode & 0o777, 0o600);
  const text = readFileSync(path, 'utf8');
  return { text, record: JSON.parse(text) as object };
}

function configuration(): Configuration {
  const parsed = parseConfiguration(json);
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.errors));
  return parsed.value;
}

function randomKey(): Uint8Array {
  const key = new Uint8Array(32);
  random.fill(key);
  return key;
}
