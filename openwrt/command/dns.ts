import type { DnsStatus } from '../../core/engine/resource-status.ts';
import { DNS_CAUSES } from '../causes.ts';
import { formatDetail, formatMs, formatTable } from '../table.ts';
import { answerOf, askDaemon, show, type View } from './ask-status.ts';

/** `culvert dns`: whether queries of the LAN come to us, what became of them, servers, and names with proxies. */
export function dns(view: View): Promise<void> {
  return show(
    view,
    async () => answerOf(await askDaemon(view.socket, 'dns')) as DnsStatus,
    formatDns,
  );
}

function formatDns(status: DnsStatus): string {
  const { cache, proxies } = status;
  const asked = cache.hits + cache.misses;
  return [
    formatState(status),
    ...formatQueries(status.queries),
    ...formatServers(status.upstreams),
    [
      `cache: ${cache.hits} of ${asked} questions answered, ${cache.entries} kept`,
      `proxies: in use for ${proxies.used} of at most ${proxies.capacity} names`,
    ].join('\n'),
    ...formatNames(proxies),
  ].join('\n\n');
}

function formatState({ mode, state, why, detail }: DnsStatus): string {
  const isOff = mode === 'off' ? 'dns.mode is off' : 'no peer serves names';
  const texts: Readonly<Record<DnsStatus['state'], string>> = {
    off: `queries of the LAN are left alone: ${isOff}`,
    starting: `queries of the LAN do not come here yet (${mode})`,
    intercepting: `queries of the LAN come here (${mode})`,
    failed: `queries of the LAN do not come here (${mode})`,
  };
  if (why === undefined) return texts[state];
  const { meaning, cure } = DNS_CAUSES[why] ?? { meaning: why };
  const given = detail === undefined || detail === '' ? [] : [detail];
  return [
    texts[state],
    formatDetail(['why', [meaning, ...given].join(': ')]),
    ...(cure === undefined ? [] : [formatDetail(['cure', cure])]),
  ].join('\n');
}

function formatQueries(queries: DnsStatus['queries']): readonly string[] {
  const seen = Object.entries(queries).filter(([, count]) => count > 0);
  if (seen.length === 0) return [];
  const rows = seen.map(([outcome, count]) => [OUTCOMES[outcome] ?? outcome, String(count)]);
  return [formatTable([['QUERIES', 'COUNT'], ...rows])];
}

const OUTCOMES: Readonly<Record<string, string | undefined>> = {
  proxies: 'for names of resources: answered with proxies',
  'proxy-name': 'for the name of a proxy: answered',
  'no-data': 'for other types of such names: answered with nothing',
  'ask-site': 'for their SRV and TXT: asked in the site of the resource',
  'proxies-exhausted': 'for names of resources: failed, as all proxies are taken',
  'application-dns': 'whether browsers may ask elsewhere: answered with no',
  forward: 'for other names: asked of servers',
  refused: 'refused: not of the class of the Internet',
  'format-error': 'refused: malformed',
  'not-implemented': 'refused: not of a kind that is known',
  'bad-version': 'refused: another version of EDNS',
  drop: 'dropped: no queries at all',
  'forwarded-queries': 'questions for servers in all, those of gateways too',
  'forwarded-joined': 'of these, asked together with the same one of another',
  'forwarded-refused': 'of these, refused: too many wait, or too large',
  'forwarded-failed': 'of these, failed: no server answered',
  'forwarded-unsolicited': 'answers that nobody had asked for: dropped',
};

function formatServers(servers: DnsStatus['upstreams']): readonly string[] {
  if (servers.length === 0) return [];
  const rows = servers.map(({ id, state, latencyMs, answers, timeouts, failures }) => [
    id,
    answers + timeouts + failures === 0 ? 'not asked' : state,
    formatMs(latencyMs),
    ...[answers, timeouts, failures].map(String),
  ]);
  const heading = ['SERVER', 'STATE', 'LATENCY', 'ANSWERS', 'TIMEOUTS', 'FAILURES'];
  return [formatTable([heading, ...rows])];
}

function formatNames({ used, names }: DnsStatus['proxies']): readonly string[] {
  if (names.length === 0) return [];
  const isIpv4 = (address: string): boolean => !address.includes(':');
  const rows = names.map((it) => [it.name, it.proxies.filter(isIpv4).join(' ')]);
  const more = used - names.length;
  const rest = more > 0 ? [`and ${more} more`] : [];
  return [[formatTable([['NAME', 'PROXIES (IPv4)'], ...rows]), ...rest].join('\n')];
}
