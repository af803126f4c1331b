import type { BaseId } from '../ice/agent.ts';
import { unreachable } from '../sansio/outcome.ts';
import type { IpAddress } from '../net/ip-address.ts';

/**
 * What the candidates of this device stand on: the UDP socket at one of our addresses, an allocation at a
 * relay by family, streams that we dial, or streams that we accepted.
 */
export type Base =
  | { readonly type: 'udp'; readonly local: IpAddress }
  | { readonly type: 'relay'; readonly relay: string; readonly family: 4 | 6 }
  | { readonly type: 'dialled' }
  | { readonly type: 'accepted' };

export function formatBase(base: Base): BaseId {
  switch (base.type) {
    case 'udp':
      return `udp ${base.local}`;
    case 'relay':
      return `relay ${base.family} ${base.relay}`;
    case 'dialled':
    case 'accepted':
      return base.type;
    default:
      return unreachable(base);
  }
}

/** Reads what `formatBase` wrote. */
export function parseBase(id: BaseId): Base {
  if (id === 'dialled' || id === 'accepted') return { type: id };
  const [type, second = '', relay = ''] = id.split(' ', 3);
  if (type === 'udp') return { type: 'udp', local: second as IpAddress };
  return { type: 'relay', family: second === '6' ? 6 : 4, relay };
}
