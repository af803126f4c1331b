import t from 'tap';
import type { Links } from '../../../core/plugin/links.ts';
import { ok } from '../../../core/sansio/outcome.ts';
import { MemoryNetwork } from '../../memory/datagrams.ts';
import { Site } from '../../sim/site.ts';
import { VirtualTime } from '../../sim/virtual-time.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;

/** One site and a kernel in which another program takes our routes away. */
class Scene {
  isInPlace = false;
  fightsBack = false;
  repairs = 0;
  readonly #time = new VirtualTime(0);
  readonly #clock = this.#time.clock();
  readonly #site: Site;
  #onChange: () => void = () => undefined;

  constructor() {
    const links: Links = {
      apply: () => ({ ...ok({ changes: this.#apply() }), failures: [] }),
      localAddresses: () => [],
      clear: () => undefined,
      monitor: (onChange) => {
        this.#onChange = onChange;
        return () => undefined;
      },
    };
    const network = new MemoryNetwork();
    this.#site = new Site({ time: this.#time, network, address: '192.0.2.1', seed: 1, links });
    this.#site.configure({ interface: { addresses: ['10.0.0.1/24'] }, peers: [] });
    this.repairs = 0;
  }

  get contests(): number {
    return this.#site.events.filter(({ type }) => type === 'link-contested').length;
  }

  takeAway(): void {
    this.isInPlace = false;
    this.report();
  }

  report(): void {
    this.#onChange();
  }

  advance(ms: number): void {
    this.#time.advance(ms, () => undefined);
  }

  #apply(): number {
    if (this.fightsBack) this.#clock.soon(() => this.takeAway());
    if (this.isInPlace) return 0;
    this.isInPlace = true;
    this.repairs++;
    return 1;
  }
}

await t.test('what another program took away is back at once', async (t) => {
  const scene = new Scene();
  for (let harm = 0; harm < 15; harm++) {
    scene.takeAway();
    scene.advance(60);
    t.equal(scene.isInPlace, true);
  }
  scene.advance(MINUTE);
  t.equal(scene.repairs, 15);
  t.equal(scene.contests, 0, 'and nobody is suspected');
});

await t.test('a program that undoes each repair is met every five seconds, and told', async (t) => {
  const scene = new Scene();
  scene.fightsBack = true;
  scene.takeAway();
  scene.advance(5 * SECOND);
  t.equal(scene.repairs, 21, 'twenty in a second, and then a pause');
  t.equal(scene.contests, 1);
  scene.advance(MINUTE);
  const before = scene.repairs;
  scene.advance(10 * MINUTE);
  t.equal(scene.repairs - before, 120, 'every five seconds');
  t.equal(scene.contests, 1, 'told once');
});

await t.test('when the other program gives up, repairs are quick again', async (t) => {
  const scene = new Scene();
  scene.fightsBack = true;
  scene.takeAway();
  scene.advance(MINUTE);
  scene.fightsBack = false;
  scene.advance(MINUTE);
  t.equal(scene.isInPlace, true);
  scene.takeAway();
  scene.advance(60);
  t.equal(scene.isInPlace, true);
  scene.advance(2 * MINUTE);
  scene.fightsBack = true;
  scene.takeAway();
  scene.advance(MINUTE);
  t.equal(scene.contests, 2, 'and the next contest is told');
});

await t.test('changes that are none of ours are looked at without delay', async (t) => {
  const scene = new Scene();
  for (let i = 0; i < 100; i++) {
    scene.report();
    scene.advance(100);
  }
  scene.takeAway();
  scene.advance(60);
  t.equal(scene.isInPlace, true);
  t.equal(scene.contests, 0);
});
