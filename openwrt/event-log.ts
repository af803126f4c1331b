import type { Event } from '../core/engine/event.ts';
import { unreachable } from '../core/sansio/outcome.ts';
import type { Log } from '../core/sansio/log.ts';

/** Writes the line that an event of the engine deserves. Where a peer is stays below `info`. */
export function logEvent(log: Log, event: Event): void {
  switch (event.type) {
    case 'peer-connected':
      return log.info('peer connected', {
        peer: event.peer,
        handshakeMs: round(event.handshakeMs),
      });
    case 'peer-failed':
      return log.info('peer does not answer', { peer: event.peer, cause: event.cause });
    case 'endpoint-changed':
      return log.debug('peer moved', { peer: event.peer, endpoint: event.endpoint });
    case 'configuration-applied':
      return log.info('configuration applied', { version: event.version, peers: event.peers });
    case 'configuration-failed': {
      const failures = event.failures.map(({ path, why }) => `${path}: ${why}`);
      const { version, running } = event;
      return log.warn('configuration failed', { version, running, failures });
    }
    case 'desired-refused': {
      const { version, why, errors } = event;
      return log.warn('desired state refused', { version, why, errors });
    }
    case 'link-contested':
      return log.warn('another program undoes our addresses or routes again and again', {
        cure: 'have it leave the interface alone: unmanaged-devices (NetworkManager), ManageForeignRoutes=no (systemd-networkd), denyinterfaces (dhcpcd), no such device in /etc/config/network (OpenWrt)',
      });
    case 'log-level':
      return log.info('log level changed', { level: event.level });
    default:
      return unreachable(event);
  }
}

function round(ms: number): number {
  return Math.round(ms * 10) / 10;
}
