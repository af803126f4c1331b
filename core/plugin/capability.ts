/**
 * Something one plugin offers and others need, named apart from who offers it. The composition root
 * decides which plugin provides a capability; the type parameter is the interface it gives.
 */
export interface Capability<Api> {
  readonly name: string;
  /** Carries the type only; never set. */
  readonly api?: Api;
}

export function capability<Api>(name: string): Capability<Api> {
  return { name };
}
