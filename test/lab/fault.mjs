/**
 * Preloaded into a daemon with `node --import`: after SIGWINCH, receiving a batch of datagrams throws, as
 * an invariant that breaks in the middle of the packet path does.
 */
import process from 'node:process';

const load = process.dlopen.bind(process);

process.dlopen = (module, ...parameters) => {
  load(module, ...parameters);
  const { receiveBatch } = module.exports;
  if (receiveBatch === undefined) return;
  let isBroken = false;
  process.on('SIGWINCH', () => {
    isBroken = true;
  });
  module.exports.receiveBatch = (...batch) => {
    if (isBroken) throw new Error('injected fault');
    return receiveBatch(...batch);
  };
};
