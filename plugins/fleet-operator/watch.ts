import { DeviceObserver } from '../../core/fleet/operator.ts';
import { topicFilter } from '../../core/fleet/topics.ts';
import type { Command } from './command.ts';
import { brokerHelp, brokerOptions, connect } from './connection.ts';
import { formatObservation, observationJson } from './observation.ts';
import { deviceKeys, nameOf, nameOption, textOption } from './options.ts';
import { UsageError } from './world.ts';

const GOODBYE_MS = 500;

export const watch: Command = {
  summary: 'Shows what the devices of a fleet say, as they say it.',
  usage: '--broker URL --fleet NAME [--device NAME] [--device-key DEVICE=KEY]... [options]',
  help: `${brokerHelp}
Lines of devices without a --device-key are marked as unverified: the broker, or whoever may write to
it, could have made them. What does not verify is ignored and said so. Ends with Ctrl-C.
`,
  options: { ...brokerOptions, fleet: { type: 'string' }, device: { type: 'string' } },
  async run(values, operands, world) {
    if (operands.length > 0) throw new UsageError(`unexpected ${operands.join(' ')}`);
    const fleet = nameOption(values, 'fleet');
    const name = textOption(values, 'device');
    const device = name === undefined ? undefined : nameOf(name, '--device');
    const observer = new DeviceObserver(fleet, deviceKeys(values), world.crypto);
    const isJson = values['json'] === true;
    const filters = (['presence', 'reported', 'state'] as const).map((kind) =>
      topicFilter(fleet, device, kind),
    );
    const channel = connect(values, world, filters, (event) => {
      if (event.type === 'connected') world.say(`connected to ${event.broker}\n`);
      if (event.type !== 'message') return;
      const observation = observer.handleMessage(event.topic, event.payload);
      if (observation.type === 'ignored' && observation.why === 'repeated') return;
      const time = new Date(world.unixMs()).toISOString();
      world.print(
        isJson
          ? `${observationJson(observation)}\n`
          : `${time.slice(11, 19)} ${formatObservation(observation)}\n`,
      );
    });
    await world.interrupted;
    await channel.close(GOODBYE_MS);
    return 0;
  },
};
