import { ipAddressFromBytes, type IpAddress } from '../net/ip-address.ts';
import { readRecords, type ResourceRecord, type Response } from './message.ts';
import { readName, type DomainName } from './name.ts';
import { CLASS, TYPE } from './numbers.ts';

/** CNAME records between the name and its addresses: what resolvers follow themselves. */
export const MOST_ALIASES = 16;

/**
 * Reads what an answer to a question for A or AAAA says of the name: the data of the records at the end of
 * its chain of CNAME records (RFC 1034 §3.6.2), in any order of the records, as they came. None where there
 * are none; `undefined` where the message is damaged or the chain does not end.
 */
export function readAddresses(
  message: Uint8Array,
  { question, questionEnd }: Response,
): readonly IpAddress[] | undefined {
  const records = readRecords(message, questionEnd);
  if (records === undefined) return undefined;
  const aliases = new Map<DomainName, DomainName>();
  const addresses = new Map<DomainName, IpAddress[]>();
  for (const record of records
    .filter((one) => isAbout(one, question.type))
    .slice(0, MOST_RECORDS)) {
    const owner = readName(message, record.start)?.name;
    if (owner === undefined) continue;
    if (record.type === TYPE.CNAME) {
      const target = readName(message, record.dataOffset);
      if (target?.end === record.end && !aliases.has(owner)) aliases.set(owner, target.name);
    } else if (record.end - record.dataOffset === lengthOf(record.type)) {
      const address = ipAddressFromBytes(message.subarray(record.dataOffset, record.end));
      const others = addresses.get(owner);
      if (others === undefined) addresses.set(owner, [address]);
      else others.push(address);
    }
  }
  let name: DomainName | undefined = question.name;
  for (let followed = 0; followed <= MOST_ALIASES; followed++) {
    const found = addresses.get(name);
    if (found !== undefined) return found;
    name = aliases.get(name);
    if (name === undefined) return [];
  }
  return undefined;
}

/** The rest is left out: reading the owners of a message full of pointers takes long. */
const MOST_RECORDS = 512;

function isAbout({ section, class: recordClass, type }: ResourceRecord, asked: number): boolean {
  return (
    section === 'answer' && recordClass === CLASS.IN && (type === asked || type === TYPE.CNAME)
  );
}

/** RFC 1035 §3.4.1, RFC 3596 §2.2; data of another length is no address. */
function lengthOf(type: number): number {
  return type === TYPE.A ? 4 : 16;
}
