import { spawn } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import { serveDaemon } from './scene.ts';

await t.test('a command whose reader has read enough ends without a word', async (t) => {
  const status = () => ({ peers: [], relays: [] });
  const resources = () => ({ used: [], served: [] });
  let sequence = 0;
  const flows = () => ({ run: 1, records: [{ sequence: ++sequence, time: 0, event: 'open' }] });
  const { socket } = await serveDaemon(t, { status, resources, flows });
  const bundle = 'dist/culvert.cjs';
  for (const command of ['paths', 'status', 'resources', 'flows']) {
    const again = command === 'flows' ? '--follow' : '--watch';
    const parameters = [bundle, command, '--json', again, '--socket', socket];
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
