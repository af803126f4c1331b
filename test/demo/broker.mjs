/** An MQTT 3.1.1 broker in one process, for the demo: `node broker.mjs HOST PORT`. */
import { createServer } from 'node:net';
import { Aedes } from 'aedes';

const [host, port] = process.argv.slice(2);
const broker = await Aedes.createBroker();
createServer(broker.handle).listen(Number(port), host, () => console.log('listening'));
