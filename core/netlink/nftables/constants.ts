/** Numbers of nf_tables (linux/netfilter/nf_tables.h), the same on every architecture. */

export const NftMessage = {
  newTable: 0,
  getTable: 1,
  removeTable: 2,
  newChain: 3,
  getChain: 4,
  removeChain: 5,
  newRule: 6,
  getRule: 7,
  removeRule: 8,
  newSet: 9,
  getSet: 10,
  removeSet: 11,
  newElements: 12,
  getElements: 13,
  removeElements: 14,
  newGeneration: 15,
  getGeneration: 16,
  newObject: 18,
  getObject: 19,
  removeObject: 20,
} as const;

export const GenerationAttribute = { id: 1, processId: 2, processName: 3 } as const;

export const TableAttribute = { name: 1, flags: 2, handle: 4, userdata: 6, owner: 7 } as const;
export const TableFlag = { dormant: 1, owner: 2 } as const;

export const ChainAttribute = {
  table: 1,
  handle: 2,
  name: 3,
  hook: 4,
  policy: 5,
  type: 7,
  userdata: 12,
} as const;
export const HookAttribute = { number: 1, priority: 2 } as const;

export const RuleAttribute = {
  table: 1,
  chain: 2,
  handle: 3,
  expressions: 4,
  userdata: 7,
} as const;

/** The items of a list of expressions or elements. */
export const LIST_ITEM = 1;

export const SetAttribute = {
  table: 1,
  name: 2,
  flags: 3,
  keyType: 4,
  keyLength: 5,
  dataType: 6,
  dataLength: 7,
  description: 9,
  id: 10,
  timeout: 11,
  userdata: 13,
  objectType: 15,
} as const;
export const SetDescription = { size: 1, fields: 2 } as const;
export const SET_FIELD_LENGTH = 1;
export const SetFlag = {
  anonymous: 0x1,
  constant: 0x2,
  interval: 0x4,
  map: 0x8,
  timeout: 0x10,
  dynamic: 0x20,
  object: 0x40,
  concatenation: 0x80,
} as const;

export const ElementsAttribute = { table: 1, set: 2, elements: 3 } as const;
export const ElementAttribute = {
  key: 1,
  data: 2,
  flags: 3,
  timeout: 4,
  expiration: 5,
  userdata: 6,
  object: 9,
  keyEnd: 10,
} as const;
export const ElementFlag = { intervalEnd: 1, catchAll: 2 } as const;

export const DataAttribute = { value: 1, verdict: 2 } as const;
export const VerdictAttribute = { code: 1, chain: 2 } as const;
/** NFT_DATA_VERDICT: the data type of a verdict map. */
export const VERDICT_DATA = 0xffff_ff00;

export const ExpressionAttribute = { name: 1, data: 2 } as const;

export const ObjectAttribute = { table: 1, name: 2, type: 3, data: 4, userdata: 8 } as const;
export const ObjectType = { counter: 1, timeout: 7 } as const;
export const CounterAttribute = { bytes: 1, packets: 2 } as const;
export const TimeoutAttribute = { family: 1, protocol: 2, data: 3 } as const;

/**
 * What nft keeps in user data, a list of type, length, value (libnftnl/udata.h): without it `nft list`
 * prints less, or numbers.
 */
export const Userdata = { comment: 0 } as const;
export const SetUserdata = {
  keyByteOrder: 0,
  dataByteOrder: 1,
  dataInterval: 6,
  comment: 7,
} as const;
export const ByteOrder = { mixed: 0, host: 1, network: 2 } as const;

export const HOOKS = ['prerouting', 'input', 'forward', 'output', 'postrouting'] as const;
