import { lookup } from 'node:dns';
import type { Resolve } from './world.ts';

/** Questions that wait for their turn; those beyond are answered with nothing, and asked again later. */
const MOST_WAITING = 4096;

type OnAnswer = (addresses: readonly string[]) => void;

/** Asks as every program of the system does: /etc/hosts, then the configured name servers. */
export const systemLookUp: Resolve = (host, onAnswer) => {
  lookup(host, { all: true }, (error, found) => {
    onAnswer(error === null ? found.map(({ address }) => address) : []);
  });
};

/**
 * Looks names up one after the other, and a name once for all who ask. libuv gives getaddrinfo two
 * threads, and a name server that is silent holds one for many seconds: the other one is for the broker.
 */
export function createResolve(lookUp: Resolve): Resolve {
  /** By name in the order of asking; the first one is being looked up. */
  const asked = new Map<string, OnAnswer[]>();
  let waiting = 0;

  function lookUpFirst(): void {
    const [host] = asked.keys();
    if (host === undefined) return;
    lookUp(host, (addresses) => {
      const askers = asked.get(host) ?? [];
      asked.delete(host);
      waiting -= askers.length;
      lookUpFirst();
      for (const onAnswer of askers) onAnswer(addresses);
    });
  }

  return (host, onAnswer) => {
    if (waiting >= MOST_WAITING) {
      setImmediate(onAnswer, []);
      return;
    }
    waiting++;
    const askers = asked.get(host);
    if (askers === undefined) asked.set(host, [onAnswer]);
    else askers.push(onAnswer);
    if (askers === undefined && asked.size === 1) lookUpFirst();
  };
}
