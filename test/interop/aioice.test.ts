import { setTimeout as wait } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { IceRole, PairId } from '../../core/ice/agent.ts';
import { formatCandidate, parseCandidate } from '../../core/ice/candidate.ts';
import { Aioice, isAioiceHere, LOCAL, Ours, type Credentials } from './ice-peers.ts';

const skip = isAioiceHere() ? false : 'aioice is not installed';

await t.test('aioice controls: we follow its nomination, and data flows', { skip }, async (t) => {
  const { ours, theirs } = await meet(t, { ours: 'controlled', theirs: 'controlling' });
  t.same(await theirs.next(), { connected: true });
  const nominated = await ours.until('nominated');
  await exchange(t, ours, theirs, nominated.pair);
});

await t.test('we control: aioice follows our nomination, and data flows', { skip }, async (t) => {
  const { ours, theirs } = await meet(t, { ours: 'controlling', theirs: 'controlled' });
  const { pair } = await ours.until('pair-valid');
  await wait(200);
  t.notOk(theirs.hasSpoken, 'valid is not nominated');
  ours.agent.nominate(pair, ours.now());
  ours.drain();
  t.same(await theirs.next(), { connected: true });
  await exchange(t, ours, theirs, pair);
});

await t.test('a pair that we probe goes on being answered', { skip }, async (t) => {
  const { ours, theirs } = await meet(t, { ours: 'controlling', theirs: 'controlled' });
  const { pair } = await ours.until('pair-valid');
  ours.agent.nominate(pair, ours.now());
  ours.drain();
  t.same(await theirs.next(), { connected: true });
  for (let i = 0; i < 3; i++) {
    const answered = ours.until('pair-answered');
    ours.agent.probe(pair, ours.now());
    ours.drain();
    t.ok((await answered).pair.rtt < 1000);
  }
});

await t.test('we are told no candidates: its checks show us where it is', { skip }, async (t) => {
  const { ours, theirs } = await meet(t, {
    ours: 'controlled',
    theirs: 'controlling',
    weKnowThem: false,
  });
  t.same(await theirs.next(), { connected: true });
  const { pair } = await ours.until('nominated');
  t.equal(pair.remoteCandidate.type, 'prflx');
  await exchange(t, ours, theirs, pair);
});

for (const role of ['controlling', 'controlled'] as const) {
  await t.test(`both are ${role}: the conflict is settled`, { skip }, async (t) => {
    // Chance decides which side gives way.
    for (let i = 0; i < 4; i++) {
      const { ours, theirs } = await meet(t, { ours: role, theirs: role });
      const { pair } = await ours.until('pair-valid');
      if (ours.agent.role === 'controlling') {
        ours.agent.nominate(pair, ours.now());
        ours.drain();
      }
      t.same(await theirs.next(), { connected: true }, `we end up ${ours.agent.role}`);
    }
  });
}

await t.test('other passwords: neither believes the other', { skip }, async (t) => {
  const { ours } = await meet(t, {
    ours: 'controlled',
    theirs: 'controlling',
    areToldOtherPasswords: true,
  });
  await wait(1500);
  t.same(ours.agent.validPairs(), []);
  t.ok(ours.agent.drops['request-not-authentic'] > 0);
});

/** Starts both and lets each have the credentials and candidates of the other. */
async function meet(
  t: Test,
  options: {
    readonly ours: IceRole;
    readonly theirs: IceRole;
    readonly weKnowThem?: boolean;
    readonly areToldOtherPasswords?: boolean;
  },
): Promise<{ ours: Ours; theirs: Aioice }> {
  const theirs = new Aioice(options.theirs);
  t.teardown(() => theirs.stop());
  const otherwise = (password: string) => {
    return options.areToldOtherPasswords === true ? `${password}, otherwise` : password;
  };
  const told = (await theirs.next()) as Credentials;
  const password = otherwise(told.password);
  const ours = await Ours.start(options.ours, { ...told, password });
  t.teardown(() => ours.stop());
  theirs.tell({
    username: LOCAL.usernameFragment,
    password: otherwise(LOCAL.password),
    candidates: ours.candidates.map(formatCandidate),
  });
  if (options.weKnowThem ?? true) {
    const candidates = told.candidates.map(parseCandidate);
    t.notOk(candidates.includes(undefined), 'all that aioice writes is read');
    const known = candidates.filter((each) => each !== undefined);
    ours.agent.setRemoteCandidates(known, ours.now());
  }
  ours.drain();
  return { ours, theirs };
}

async function exchange(t: Test, ours: Ours, theirs: Aioice, pair: PairId): Promise<void> {
  const echoed = ours.nextDatagram();
  ours.send(pair, Buffer.from('through the path'));
  t.same(await theirs.next(), { received: 'through the path' });
  t.equal((await echoed).toString(), 'through the path');
}
