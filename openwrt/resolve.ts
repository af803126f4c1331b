import { lookup } from 'node:dns';
import type { Resolve } from './world.ts';

/** Asks as every program of the system does: /etc/hosts, then the configured name servers. */
export const resolve: Resolve = (host, onAnswer) => {
  lookup(host, { all: true }, (error, found) => {
    onAnswer(error === null ? found.map(({ address }) => address) : []);
  });
};
