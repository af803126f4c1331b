import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import type { Test } from 'tap';
import type { Authority, Directory } from '../../interop/mosquitto-broker.ts';

/** Starts dnsmasq on a free port; `arguments_` say what it knows. Returns `127.0.0.1:port`. */
export async function startDnsmasq(t: Test, ...arguments_: readonly string[]): Promise<string> {
  const port = await freePort();
  const common = [
    '--keep-in-foreground',
    '--conf-file=/dev/null',
    '--user=root',
    '--no-resolv',
    '--no-hosts',
    '--bind-interfaces',
    '--listen-address=127.0.0.1',
    '--pid-file',
  ];
  await run(t, '/usr/sbin/dnsmasq', [...common, `--port=${port}`, ...arguments_], port);
  return `127.0.0.1:${port}`;
}

/** Ports of an Unbound at 127.0.0.1 that serves all transports. */
export interface Unbound {
  readonly plain: number;
  readonly tls: number;
  readonly https: number;
}

export async function startUnbound(
  t: Test,
  directory: Directory,
  authority: Authority,
  commonName: string,
  data: readonly string[],
): Promise<Unbound> {
  const [plain, tls, https] = [await freePort(), await freePort(), await freePort()];
  const configuration = directory.write(
    'unbound.conf',
    [
      'server:',
      ...[plain, tls, https].map((port) => `interface: 127.0.0.1@${port}`),
      `tls-port: ${tls}`,
      `https-port: ${https}`,
      `tls-service-key: "${authority.path('key', commonName)}"`,
      `tls-service-pem: "${authority.path('crt', commonName)}"`,
      'do-daemonize: no',
      'username: ""',
      'chroot: ""',
      `directory: "${directory.path}"`,
      'pidfile: ""',
      'use-syslog: no',
      'logfile: ""',
      'module-config: "iterator"',
      'incoming-num-tcp: 50',
      'local-zone: "test." static',
      ...data.map((record) => `local-data: '${record}'`),
      '',
    ].join('\n'),
  );
  await run(t, '/usr/sbin/unbound', ['-d', '-c', configuration], https);
  return { plain, tls, https };
}

/** Runs a server until the test is over; it is up when it takes connections. */
async function run(
  t: Test,
  command: string,
  arguments_: readonly string[],
  port: number,
): Promise<void> {
  const child = spawn(command, arguments_, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  }
  t.teardown(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill();
    await once(child, 'exit');
  });
  for (let tries = 0; !(await answers(port)); tries++) {
    if (tries > 200 || child.exitCode !== null) throw new Error(`${command}: ${output}`);
    await wait(20);
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
