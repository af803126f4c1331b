import { randomFillSync } from 'node:crypto';
import * as dnsPacket from 'dns-packet';
import { parseDomainName, type DomainName } from '../../../core/dns/name.ts';
import { parsePattern, PatternTable } from '../../../core/dns/pattern.ts';
import { ProxyPool, type ProxyRanges } from '../../../core/dns/proxy-pool.ts';
import type { IpStack } from '../../../core/dns/stub-resolver.ts';
import { parseIpPrefix, type IpPrefix } from '../../../core/net/ip-prefix.ts';
import type { Random } from '../../../core/sansio/random.ts';

/** Messages as npm's dns-packet writes and reads them, which shares no code with ours. */
export type Message = dnsPacket.DecodedPacket & { readonly rcode?: string };

export interface QuestionOptions {
  readonly id?: number;
  /** `undefined` for no EDNS. */
  readonly udpSize?: number;
  readonly isDnssecOk?: boolean;
  readonly ednsVersion?: number;
  readonly class?: dnsPacket.RecordClass;
  readonly flags?: number;
  readonly options?: readonly object[];
}

export function question(name: string, type: string, options: QuestionOptions = {}): Uint8Array {
  const { id = 0x1234, udpSize, isDnssecOk = false, ednsVersion = 0 } = options;
  return Uint8Array.from(
    dnsPacket.encode({
      type: 'query',
      id,
      flags: options.flags ?? dnsPacket.RECURSION_DESIRED,
      questions: [{ name, type: type as dnsPacket.RecordType, class: options.class ?? 'IN' }],
      additionals:
        udpSize === undefined
          ? []
          : [
              {
                type: 'OPT',
                name: '.',
                udpPayloadSize: udpSize,
                extendedRcode: 0,
                ednsVersion,
                flags: isDnssecOk ? dnsPacket.DNSSEC_OK : 0,
                flag_do: isDnssecOk,
                options: (options.options ?? []) as dnsPacket.PacketOpt[],
              },
            ],
    }),
  );
}

export interface AnswerOptions {
  readonly answers?: readonly dnsPacket.Answer[];
  readonly authorities?: readonly dnsPacket.Answer[];
  readonly additionals?: readonly dnsPacket.Answer[];
  /** 0 NOERROR, 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED. */
  readonly rcode?: number;
  readonly flags?: number;
}

/** What a server says to the query: the id and the question are those of the query. */
export function reply(query: Uint8Array, options: AnswerOptions = {}): Uint8Array {
  const { id = 0, questions = [] } = dnsPacket.decode(Buffer.from(query));
  const { answers = [], authorities = [], additionals = [], rcode = 0, flags = 0 } = options;
  return Uint8Array.from(
    dnsPacket.encode({
      type: 'response',
      id,
      flags: dnsPacket.RECURSION_DESIRED | dnsPacket.RECURSION_AVAILABLE | flags | rcode,
      questions,
      answers: [...answers],
      authorities: [...authorities],
      additionals: [...additionals],
    }),
  );
}

export function decode(bytes: Uint8Array): Message {
  return dnsPacket.decode(Buffer.from(bytes));
}

export function record(name: string, type: 'A' | 'AAAA' | 'CNAME', data: string, ttl = 60) {
  return { name, type, ttl, data } as const;
}

export function soa(name: string, ttl: number, minimum: number): dnsPacket.Answer {
  const data = { mname: 'ns.example', rname: 'a.example', serial: 7, minimum };
  return { name, type: 'SOA', ttl, data };
}

export const OPT_OF_SERVER = {
  type: 'OPT',
  name: '.',
  udpPayloadSize: 1400,
  flags: 0,
  options: [],
} as unknown as dnsPacket.Answer;

export interface TestResource {
  readonly id: string;
  readonly ipStack: IpStack;
  readonly siteGroup: string;
}

export function resources(patterns: Readonly<Record<string, IpStack>>): PatternTable<TestResource> {
  return new PatternTable(
    Object.entries(patterns).map(([text, ipStack]) => {
      const pattern = parsePattern(text);
      if (!pattern.ok) throw new Error(`${text}: ${pattern.why}`);
      return [pattern.value, { id: text, ipStack, siteGroup: 'site' }] as const;
    }),
  );
}

export function nameOf(text: string): DomainName {
  const parsed = parseDomainName(text);
  if (!parsed.ok) throw new Error(`${text}: ${parsed.why}`);
  return parsed.value;
}

export function prefixOf(text: string): IpPrefix {
  const parsed = parseIpPrefix(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}

export const RANGES: ProxyRanges = {
  ipv4: prefixOf('100.96.0.0/11'),
  ipv6: prefixOf('fd12:3456:789a:8000::/64'),
};

export function pool(): ProxyPool {
  return new ProxyPool(RANGES);
}

/** Of the kernel, where nothing has to be repeated. */
export const realRandom: Random = { fill: (out) => void randomFillSync(out) };
