import { spawn } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import { serveDaemon } from './scene.ts';

await t.test('a command whose reader has read enough ends without a word', async (t) => {
  const status = () => ({ peers: [], relays: [] });
  const { socket } = await serveDaemon(t, { status });
  const bundle = 'dist/culvert.cjs';
  for (const command of ['paths', 'status']) {
    const parameters = [bundle, command, '--json', '--watch', '--socket', socket];
    const child = spawn(process.execPath, parameters, { stdio: ['ignore', 'pipe', 'pipe'] });
    let complaints = '';
    child.stderr.on('data', (text) => (complaints += String(text)));
    await once(child.stdout, 'data');
    child.stdout.destroy();
    const [code] = (await once(child, 'exit')) as [number | null];
    t.equal(code, 0, command);
    t.equal(complaints, '');
  }
});
