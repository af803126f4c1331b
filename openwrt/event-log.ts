import type { Event } from '../core/engine/event.ts';
import { unreachable } from '../core/sansio/outcome.ts';
import type { Log } from '../core/sansio/log.ts';
import { PATH_LOSSES, peerCause, RELAY_CAUSES, STREAMS_CAUSES } from './causes.ts';
import { isResourceEvent, logResourceEvent } from './resource-log.ts';

/** Writes the line that an event of the engine deserves. Where a peer is stays below `info`. */
export function logEvent(log: Log, event: Event): void {
  if (isResourceEvent(event)) return logResourceEvent(log, event);
  switch (event.type) {
    case 'peer-connected':
      return log.info('peer connected', {
        peer: event.peer,
        handshakeMs: round(event.handshakeMs),
      });
    case 'peer-failed':
      return log.info('peer does not answer', {
        peer: event.peer,
        cause: event.cause,
        cure: peerCause(event.cause).cure,
      });
    case 'endpoint-changed':
      return log.debug('peer moved', { peer: event.peer, endpoint: event.endpoint });
    case 'path-selected': {
      const { peer, kind, remote, why } = event;
      log.info('path selected', { peer, kind, rttMs: round(event.rttMs), why });
      return log.debug('path leads to', { peer, remote });
    }
    case 'path-lost':
      return log.info('path lost', { peer: event.peer, why: PATH_LOSSES[event.why] });
    case 'connection-failed':
      return log.info('no connection with peer', {
        peer: event.peer,
        cause: event.cause,
        cure: peerCause(event.cause).cure,
      });
    case 'peer-left':
      return log.info('peer said goodbye', { peer: event.peer, reason: event.reason });
    case 'key-mismatch':
      return log.warn('signals of a peer do not open', {
        peer: event.peer,
        cause: 'key-mismatch',
        cure: peerCause('key-mismatch').cure,
      });
    case 'relay-ready':
    case 'relay-failed':
    case 'no-relays':
      return logRelay(log, event);
    case 'streams-not-listening':
      return log.warn('streams are not accepted', {
        cause: event.why,
        cure: STREAMS_CAUSES[event.why].cure,
      });
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
    case 'drain-begun':
      return log.info('draining', { peers: event.peers });
    case 'drain-cancelled':
      return log.info('drain cancelled');
    case 'drained':
      return log.info('drained', { busy: event.busy });
    case 'log-level':
      return log.info('log level changed', { level: event.level });
    default:
      return unreachable(event);
  }
}

function logRelay(
  log: Log,
  event: Extract<Event, { type: 'relay-ready' | 'relay-failed' | 'no-relays' }>,
): void {
  switch (event.type) {
    case 'relay-ready':
      return log.info('relay ready', { relay: event.relay });
    case 'relay-failed':
      return log.warn('relay failed', {
        relay: event.relay,
        cause: event.why,
        detail: event.detail === '' ? undefined : event.detail,
        // What exactly was met names its own cure.
        cure:
          event.why === 'not-reachable' && event.detail !== ''
            ? undefined
            : RELAY_CAUSES[event.why]?.cure,
      });
    case 'no-relays':
      return log.warn('no relay is left');
  }
}

function round(ms: number): number {
  return Math.round(ms * 10) / 10;
}
