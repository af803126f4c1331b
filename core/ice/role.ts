import type { StunAttributes } from '../stun/message.ts';

export type IceRole = 'controlling' | 'controlled';

/**
 * Settles who controls when a request comes (RFC 8445 §7.3.1.1). Where both want the same role the larger
 * tie-breaker controls: returns whether all is well, we switch, or the peer has to (487).
 */
export function settleRole(
  role: IceRole,
  tieBreaker: Uint8Array,
  request: StunAttributes,
): 'agreed' | 'switch' | 'conflict' {
  const theirs = role === 'controlling' ? request.iceControlling : request.iceControlled;
  if (theirs === undefined) return 'agreed';
  const weControl = compareBytes(tieBreaker, theirs) >= 0;
  return weControl === (role === 'controlling') ? 'conflict' : 'switch';
}

export function otherRole(role: IceRole): IceRole {
  return role === 'controlling' ? 'controlled' : 'controlling';
}

/** Compares numbers of equal length in network order; both are public. */
function compareBytes(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
