import type { Log } from '../../core/sansio/log.ts';
import {
  UAPI_ERRNO,
  createUapiSplitter,
  formatUapiErrno,
  formatUapiState,
  parseUapiRequest,
  type UapiSet,
  type UapiState,
} from '../../core/wireguard/uapi.ts';
import { createUnixServer, type LocalServer } from './unix-server.ts';

export interface UapiHandler {
  get(): UapiState;
  /** Returns 0, or the positive errno that `wg` shows. */
  set(request: UapiSet): number | Promise<number>;
}

export interface UapiSocketOptions {
  /** Where `wg` looks: /var/run/wireguard/<interface>.sock. */
  readonly path: string;
  readonly handler: UapiHandler;
  readonly log: Log;
}

/** Serves `wg show` and `wg set` for an interface of the userspace plane. */
export function createUapiSocket({ path, handler, log }: UapiSocketOptions): LocalServer {
  async function answer(text: string): Promise<string> {
    const request = parseUapiRequest(text);
    if (!request.ok) return formatUapiErrno(UAPI_ERRNO[request.why]);
    try {
      if (request.value.type === 'get') return formatUapiState(handler.get());
      return formatUapiErrno(await handler.set(request.value));
    } catch (error) {
      log.error('configuration protocol failed', { cause: String(error) });
      return formatUapiErrno(EIO);
    }
  }

  return createUnixServer({
    path,
    encoding: 'latin1',
    createSplitter: () => createUapiSplitter(),
    answer,
    tooLarge: formatUapiErrno(UAPI_ERRNO.protocol),
  });
}

const EIO = 5;
