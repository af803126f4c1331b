import { spawn, spawnSync } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import t, { type Test } from 'tap';
import { Lab, whyNoLab } from './namespaces.ts';

const skip = whyNoLab();

await t.test('two linked namespaces reach each other over IPv4 and IPv6', { skip }, async (t) => {
  const lab = await labFor(t, 'lab-link');
  await lab.namespace('a');
  await lab.namespace('b');
  const devices = await lab.link('a', 'b', ['10.9.0.1/24', 'fd09::1/64'], ['10.9.0.2/24']);
  t.same(devices, ['to-b', 'to-a']);
  await lab.ip('b', 'address add fd09::2/64 dev to-a nodad');

  for (const target of ['10.9.0.2', 'fd09::2', '127.0.0.1']) {
    const { code, stdout, stderr } = await lab.exec('a', ['ping', '-c1', '-W5', target]);
    t.equal(code, 0, `${target} answers: ${stdout}${stderr}`);
  }
  const { code } = await lab.exec('a', ['ping', '-c1', '-W1', '10.9.0.9']);
  t.equal(code, 1, 'nobody answers for an address that nobody has');
});

await t.test('exec gives input, output and the exit code', { skip }, async (t) => {
  const lab = await labFor(t, 'lab-exec');
  await lab.namespace('a');
  const result = await lab.exec('a', ['sh', '-c', 'cat; echo $COLOUR >&2; exit 3'], {
    input: 'hello',
    env: { COLOUR: 'blue' },
  });
  t.same(result, { stdout: 'hello', stderr: 'blue\n', code: 3 });
  t.equal((await lab.exec('a', ['sh', '-c', 'kill -9 $$'])).code, -1);
  t.notMatch((await lab.exec('a', ['env'])).stdout, 'NODE_OPTIONS', 'tap stays outside');
  await t.rejects(lab.exec('a', ['sleep', '60'], { timeoutMs: 50 }), /sleep 60/);
  await t.rejects(lab.ip('a', 'link set nothing up'), /Cannot find device/);
});

await t.test('a spawned command is waited for by what it prints', { skip }, async (t) => {
  const lab = await labFor(t, 'lab-spawn');
  await lab.namespace('a');
  const server = lab.spawn('a', ['sh', '-c', 'echo port 42; echo ready >&2; exec sleep 60']);
  const [, port] = await server.waitFor(/port (\d+)/, 5000);
  t.equal(port, '42');
  await server.waitFor(/ready/, 5000);
  t.match(await server.waitFor(/port/, 5000), ['port'], 'lines printed before count');
  t.equal(
    readlinkSync(`/proc/${server.pid}/ns/net`),
    (await lab.exec('a', ['readlink', '/proc/self/ns/net'])).stdout.trim(),
    'the pid is that of the command, which runs in the namespace',
  );
  await t.rejects(server.waitFor(/never/, 50), /no such line in 50 ms.*\n.*port 42/);
  t.equal(await server.stop(), -1, 'SIGTERM ended it');
  t.equal(await server.stop(), -1, 'stopping twice is harmless');

  const brief = lab.spawn('a', ['sh', '-c', 'echo bye; exit 7']);
  await t.rejects(brief.waitFor(/never/, 5000), /ended with 7/);
  t.equal(await brief.ended, 7);
  const stubborn = lab.spawn('a', ['sh', '-c', 'trap "" TERM; echo up; while :; do sleep 1; done']);
  await stubborn.waitFor(/up/, 5000);
  t.equal(await stubborn.stop(), -1, 'SIGKILL ends what ignores SIGTERM');
});

await t.test('destroy leaves no namespace and no process', { skip }, async (t) => {
  const lab = await Lab.create('lab-destroy');
  await lab.namespace('a');
  const sleeper = lab.spawn('a', ['sh', '-c', 'sleep 1000 & echo $!; wait']);
  const [child = ''] = await sleeper.waitFor(/^\d+$/, 5000);
  await lab.destroy();
  t.same(namespaces('lab-destroy'), []);
  t.ok(await hasEnded(Number(child)), 'the child of the command is gone too');
});

await t.test('a new lab removes what a killed one left, and only that', { skip }, async (t) => {
  const neighbour = await labFor(t, 'lab-crash-other');
  await neighbour.namespace('a');
  const { pid, child } = await crash('SIGKILL');
  t.same(namespaces('lab-crash'), ['lab-crash.a'], 'a killed process leaves its namespace');
  const lab = await labFor(t, 'lab-crash');
  t.same(namespaces('lab-crash'), []);
  t.ok(await hasEnded(pid));
  t.same(namespaces('lab-crash-other'), ['lab-crash-other.a']);
  await lab.namespace('a');
  t.equal(child.signalCode, 'SIGKILL');
});

await t.test('a lab goes away when its process is interrupted', { skip }, async (t) => {
  const { pid, child } = await crash('SIGINT');
  t.equal(child.signalCode, 'SIGINT', 'the signal keeps its meaning');
  t.same(namespaces('lab-crash'), []);
  t.ok(await hasEnded(pid));
});

async function labFor(t: Test, prefix: string): Promise<Lab> {
  const lab = await Lab.create(prefix);
  t.teardown(() => lab.destroy());
  return lab;
}

/** Runs a process with a lab of its own that ends by `signal`. Returns it and its command's pid. */
async function crash(
  signal: NodeJS.Signals,
): Promise<{ pid: number; child: ReturnType<typeof spawn> }> {
  const script = `
    import { Lab } from '${new URL('namespaces.ts', import.meta.url).href}';
    const lab = await Lab.create('lab-crash');
    await lab.namespace('a');
    const { pid } = lab.spawn('a', ['sleep', '1000']);
    console.log(pid);
  `;
  const child = spawn(
    process.execPath,
    [...process.execArgv, '--input-type=module', '--eval', script],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const pid = await new Promise<number>((resolve) => {
    child.stdout.once('data', (text: Buffer) => resolve(Number(text.toString())));
  });
  child.kill(signal);
  await new Promise((resolve) => child.once('exit', resolve));
  return { pid, child };
}

function namespaces(prefix: string): readonly string[] {
  const { stdout } = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' });
  return stdout
    .split('\n')
    .map((line) => line.split(' ')[0] ?? '')
    .filter((name) => name.startsWith(`${prefix}.`));
}

/** Whether a process ends within a second: a killed one is there until its parent has reaped it. */
async function hasEnded(pid: number): Promise<boolean> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const { stdout } = spawnSync('ps', ['-o', 'stat=', '-p', String(pid)], { encoding: 'utf8' });
    if (stdout.trim() === '' || stdout.startsWith('Z')) return true;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return false;
}
