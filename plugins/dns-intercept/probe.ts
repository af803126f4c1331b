import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import { encodeQuery } from '../../core/dns/answer.ts';
import { decodeResponse } from '../../core/dns/message.ts';
import { RCODE, TYPE } from '../../core/dns/numbers.ts';
import { APPLICATION_DNS } from '../../core/dns/stub-resolver.ts';
import type { Millis } from '../../core/sansio/instant.ts';

const PATIENCE: Millis = 1_000;

/**
 * Whether our listener answers there: asked for the one name that we say does not exist and that no other
 * server need be asked about.
 */
export function isAnswering(host: string, port: number): Promise<boolean> {
  const id = randomInt(0x1_0000);
  const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
  return new Promise((resolve) => {
    const end = (isThere: boolean): void => {
      clearTimeout(timer);
      socket.removeAllListeners().close();
      resolve(isThere);
    };
    const timer = setTimeout(() => end(false), PATIENCE);
    // Nobody has the port, or nothing leads there.
    socket.on('error', () => end(false));
    socket.on('message', (bytes) => {
      const response = decodeResponse(bytes);
      if (response?.id === id && response.rcode === RCODE.NXDOMAIN) end(true);
    });
    // Connected, a socket is told of a port that nobody has, and hears nobody else.
    socket.once('connect', () => {
      socket.send(encodeQuery({ name: APPLICATION_DNS, type: TYPE.A }, id));
    });
    socket.connect(port, host);
  });
}
