import t from 'tap';
import { openPublication } from '../../../core/fleet/device-signature.ts';
import type { Files } from '../../../core/plugin/files.ts';
import { failed, ok } from '../../../core/sansio/outcome.ts';
import { MemoryNetwork } from '../../memory/datagrams.ts';
import { Site } from '../../sim/site.ts';
import { VirtualTime } from '../../sim/virtual-time.ts';
import { crypto, deviceOptions, devicePublicKey, envelope, UNIX_MS } from '../fleet/fleet-scene.ts';

/** A device of a fleet with its whole engine. */
class Scene {
  isFull = false;
  readonly site: Site;
  readonly #time = new VirtualTime(UNIX_MS);

  constructor() {
    const files: Files = {
      read: () => undefined,
      write: () => (this.isFull ? failed('not-writable') : ok(undefined)),
      remove: () => undefined,
    };
    this.site = new Site({
      time: this.#time,
      network: new MemoryNetwork(),
      address: '192.0.2.1',
      seed: 1,
      files,
      fleet: deviceOptions(),
    });
    const event = { type: 'connected', broker: 'mqtt://b', protocol: '5' } as const;
    this.site.input({ type: 'control', event });
  }

  desired(payload: Uint8Array): void {
    const topic = 'culvert/1/acme/r1/desired';
    this.site.input({ type: 'control', event: { type: 'message', topic, payload } });
    this.#time.advance(2_000, () => undefined);
  }

  /** What the fleet was told last. */
  get reported(): unknown {
    const last = this.site.published.findLast(({ topic }) => topic.endsWith('/reported'));
    if (last === undefined) return undefined;
    const opened = openPublication(last.topic, last.payload, devicePublicKey, crypto);
    return opened.ok ? opened.value.payload : opened.why;
  }
}

await t.test('a desired state runs, is told as applied and stands in the status', async (t) => {
  const scene = new Scene();
  scene.desired(envelope(3));
  t.match(scene.reported, { phase: 'applied', appliedVersion: 3 });
  t.match(scene.site.engine.status(), {
    phase: 'running',
    fleet: { version: 3, broker: 'mqtt://b' },
    peers: [{ id: 'b' }],
    lastError: undefined,
  });
});

await t.test('one that cannot be kept runs until the restart, and both sides know', async (t) => {
  const scene = new Scene();
  scene.desired(envelope(3));
  scene.isFull = true;
  scene.desired(envelope(4));
  const path = 'desired state';
  const why = 'not kept: the state directory is full';
  t.match(scene.reported, { phase: 'failed', appliedVersion: 4, errors: [{ path, message: why }] });
  t.match(scene.site.engine.status(), { fleet: { version: 4 }, lastError: `${path}: ${why}` });
  t.match(scene.site.events.at(-1), {
    type: 'configuration-failed',
    version: 4,
    running: true,
    failures: [{ path, why }],
  });
  scene.isFull = false;
  scene.desired(envelope(5));
  t.match(scene.reported, { phase: 'applied', appliedVersion: 5 });
  t.equal(scene.site.engine.status().lastError, undefined, 'until there is room for the next');
});
