import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Lab, type Running } from '../../lab/namespaces.ts';
import { freshQueries, FRESH_ZONE, ORDINARY_NAMES, realisticQueries } from './queries.ts';

/** Where the forwarders listen, and the server that they ask. */
export const ROUTER = '192.168.1.1';
export const UPSTREAM = '10.9.0.2';

/** More than are asked in one measurement; further ones begin anew. */
const REALISTIC = 400_000;
const FRESH = 400_000;

/** Files of questions for dnsperf. */
export interface Questions {
  readonly realistic: string;
  /** Each name once. */
  readonly fresh: string;
  /** The same, others, for questions one after the other. */
  readonly single: string;
}

export interface NamesScene {
  readonly lab: Lab;
  readonly questions: Questions;
  readonly directory: string;
}

/**
 * Runs the work in a fresh lab:
 *
 *   client ── router ── upstream
 *
 * dnsperf belongs to the client, the forwarder that is measured to the router. At the upstream unbound
 * knows every name by itself.
 */
export async function inNamesScene(
  under: string,
  work: (scene: NamesScene) => Promise<void>,
): Promise<void> {
  const directory = mkdtempSync(join(under, 'names-'));
  const lab = await Lab.create('culvert-names');
  try {
    for (const name of ['client', 'router', 'upstream']) await lab.namespace(name);
    await lab.link('router', 'client', [`${ROUTER}/24`], ['192.168.1.50/24']);
    await lab.link('router', 'upstream', ['10.9.0.1/24'], [`${UPSTREAM}/24`]);
    await lab.exec('router', ['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
    await lab.ip('client', `route add default via ${ROUTER}`);
    await lab.ip('upstream', 'route add default via 10.9.0.1');
    const write = (name: string, text: string): string => {
      writeFileSync(join(directory, name), text);
      return join(directory, name);
    };
    await startUnbound(lab, write('unbound.conf', unboundConfiguration(directory)));
    const questions = {
      realistic: write('realistic', realisticQueries(REALISTIC)),
      fresh: write('fresh', freshQueries(FRESH, 'host')),
      single: write('single', freshQueries(FRESH, 'single')),
    };
    await work({ lab, questions, directory });
  } finally {
    await lab.destroy();
  }
}

async function startUnbound(lab: Lab, configuration: string): Promise<Running> {
  const running = lab.spawn('upstream', ['/usr/sbin/unbound', '-d', '-c', configuration]);
  await running.waitFor(/start of service/, 20_000);
  return running;
}

/** Every second name has an AAAA record, every tenth an HTTPS record; the others are answered without one. */
function unboundConfiguration(directory: string): string {
  const data = ORDINARY_NAMES.flatMap((name, rank) => [
    `${name}. 300 IN A 198.51.100.${rank & 0xff}`,
    ...(rank % 2 === 0 ? [`${name}. 300 IN AAAA 2001:db8::${(rank & 0xffff).toString(16)}`] : []),
    ...(rank % 10 === 0 ? [`${name}. 300 IN HTTPS 1 . alpn=h2`] : []),
  ]);
  const soa = 'ns.example. admin.example. 1 3600 600 86400 300';
  return [
    'server:',
    `  interface: ${UPSTREAM}`,
    '  access-control: 0.0.0.0/0 allow',
    '  username: ""',
    '  chroot: ""',
    `  directory: "${directory}"`,
    '  pidfile: ""',
    '  use-syslog: no',
    '  logfile: ""',
    '  verbosity: 1',
    '  do-daemonize: no',
    '  module-config: "iterator"',
    '  num-threads: 1',
    '  so-rcvbuf: 0',
    '  local-zone: "example." static',
    `  local-data: "example. 3600 IN SOA ${soa}"`,
    ...data.map((record) => `  local-data: "${record}"`),
    `  local-zone: "${FRESH_ZONE}." redirect`,
    `  local-data: "${FRESH_ZONE}. 300 IN A 203.0.113.7"`,
    '',
  ].join('\n');
}
