import t from 'tap';
import {
  Authorizations,
  type Authorization,
  type AuthorizationEvent,
} from '../../../core/access/authorizations.ts';
import { instantAt } from '../../../core/sansio/instant.ts';

/** The calendar at instant 0. */
const UNIX = 1_900_000_000_000;

await t.test('an authorization ends by its expiry', async (t) => {
  const authorizations = create(auth('a', 'x', UNIX + 5000), auth('a', 'y', UNIX + 9000));
  t.same(authorizations.pollTimeout(), { at: 5000, reason: 'authorization expires' });
  authorizations.handleTimeout(instantAt(4999));
  t.ok(has(authorizations, 'a', 'x'));
  authorizations.handleTimeout(instantAt(5000));
  t.notOk(has(authorizations, 'a', 'x'));
  t.same(events(authorizations), [ended('a', 'x', 'expired')]);
  t.equal(authorizations.pollTimeout()?.at, 9000);
  authorizations.handleTimeout(instantAt(9000));
  t.same(events(authorizations), [ended('a', 'y', 'expired'), last('a', 'expired')]);
  t.equal(authorizations.pollTimeout(), undefined);
});

await t.test('when the clock is set, deadlines move with it', async (t) => {
  const authorizations = create(auth('a', 'x', UNIX + 3_600_000));
  authorizations.handleWallClock(UNIX + 1_800_000, instantAt(1000));
  t.equal(authorizations.pollTimeout()?.at, 1000 + 1_800_000);
  authorizations.handleWallClock(UNIX - 1000, instantAt(1000));
  t.equal(authorizations.pollTimeout()?.at, 1000 + 3_601_000);
  authorizations.handleWallClock(UNIX + 3_600_000, instantAt(1000));
  t.same(events(authorizations), [ended('a', 'x', 'expired'), last('a', 'expired')]);
});

await t.test('an authorization ends by revocation', async (t) => {
  const authorizations = create(auth('a', 'x'), auth('a', 'y'));
  t.ok(authorizations.revoke('a', 'x'));
  t.notOk(authorizations.revoke('a', 'x'));
  t.same(events(authorizations), [ended('a', 'x', 'revoked')]);
  authorizations.revoke('a', 'y');
  t.same(events(authorizations), [ended('a', 'y', 'revoked'), last('a', 'revoked')]);
  t.equal(authorizations.size, 0);
});

await t.test('an authorization ends by a state that omits it, and others go on', async (t) => {
  const authorizations = create(auth('a', 'x'), auth('a', 'y'), auth('b', 'x'));
  authorizations.replace([auth('a', 'y'), auth('c', 'x')], instantAt(1));
  t.same(events(authorizations), [
    ended('a', 'x', 'omitted'),
    ended('b', 'x', 'omitted'),
    last('b', 'omitted'),
  ]);
  t.ok(has(authorizations, 'a', 'y'));
  t.ok(has(authorizations, 'c', 'x'));
  t.equal(authorizations.size, 2);
  authorizations.replace([auth('a', 'y'), auth('c', 'x')], instantAt(2));
  t.same(events(authorizations), [], 'the same again is nothing');
});

await t.test('nothing else ends one, however long nobody calls', async (t) => {
  const authorizations = create(auth('a', 'x'));
  authorizations.handleTimeout(instantAt(100 * 365 * 86_400_000));
  t.ok(has(authorizations, 'a', 'x'));
  t.same(events(authorizations), []);
});

await t.test('a repeated one takes the new expiry', async (t) => {
  const authorizations = create(auth('a', 'x', UNIX + 5000));
  t.ok(authorizations.grant(auth('a', 'x', UNIX + 8000), instantAt(0)).ok);
  t.equal(authorizations.size, 1);
  authorizations.handleTimeout(instantAt(5000));
  t.ok(has(authorizations, 'a', 'x'));
  authorizations.replace([auth('a', 'x')], instantAt(6000));
  t.equal(authorizations.pollTimeout(), undefined);
  t.same(events(authorizations), []);
});

await t.test('one that is over is not taken', async (t) => {
  const authorizations = create(auth('a', 'x'));
  t.match(authorizations.grant(auth('b', 'x', UNIX), instantAt(0)), { ok: false, why: 'expired' });
  authorizations.replace([auth('a', 'x', UNIX - 1)], instantAt(0));
  t.same(events(authorizations), [ended('a', 'x', 'expired'), last('a', 'expired')]);
  t.equal(authorizations.size, 0);
});

function create(...given: readonly Authorization[]): Authorizations {
  const authorizations = new Authorizations(UNIX, instantAt(0));
  authorizations.replace(given, instantAt(0));
  return authorizations;
}

function auth(peer: string, resource: string, expiresAt?: number): Authorization {
  return { peer, resource, filters: [], ...(expiresAt !== undefined && { expiresAt }) };
}

function has(authorizations: Authorizations, peer: string, resource: string): boolean {
  return authorizations.of(peer)?.has(resource) === true;
}

function events(authorizations: Authorizations): AuthorizationEvent[] {
  const all: AuthorizationEvent[] = [];
  for (let event = authorizations.pollEvent(); event; event = authorizations.pollEvent()) {
    all.push(event);
  }
  return all;
}

function ended(
  peer: string,
  resource: string,
  why: 'expired' | 'revoked' | 'omitted',
): AuthorizationEvent {
  return { type: 'authorization-ended', peer, resource, why };
}

function last(peer: string, why: 'expired' | 'revoked' | 'omitted'): AuthorizationEvent {
  return { type: 'last-authorization-ended', peer, why };
}
