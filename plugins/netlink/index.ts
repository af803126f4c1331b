export { createConntrack, type ConntrackOptions } from './conntrack.ts';
export { createNetlink, DEFAULT_TABLE, ROUTE_PROTOCOL, type NetlinkOptions } from './links.ts';
export { createMemoryConntrack, MemoryConnections } from './memory-conntrack.ts';
export { createMemoryRuleset, MemoryTables } from './memory-ruleset.ts';
export { createMemoryLinks, MemoryKernel } from './memory.ts';
export type { Answer, Refusal } from './refusal.ts';
export { Nftables } from './nftables.ts';
export { createRuleset, type RulesetOptions } from './ruleset.ts';
export { Rtnetlink } from './rtnetlink.ts';
