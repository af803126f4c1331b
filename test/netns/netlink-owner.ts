/* A program that makes a table of its own and waits to be killed. */
import { createRuleset } from '../../plugins/netlink/index.ts';
import { hostOf, loadSystemCalls } from './netlink-namespace.ts';

const plugin = createRuleset().create(hostOf(await loadSystemCalls()));
if ('skip' in plugin) throw new Error(plugin.skip);
const applied = plugin.api.apply([{ family: 'inet', name: 'owned', isOwned: true, chains: [] }]);
console.log(JSON.stringify(applied));
setInterval(() => undefined, 1000);
