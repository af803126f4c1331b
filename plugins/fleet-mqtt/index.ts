import { controlChannel, type ControlChannel } from '../../core/plugin/control-channel.ts';
import type { PluginDefinition } from '../../core/plugin/plugin.ts';
import { MqttControlChannel, type MqttOptions } from './mqtt-control-channel.ts';

export { MqttControlChannel, type MqttOptions } from './mqtt-control-channel.ts';

/** The control channel over MQTT 5 or 3.1.1, by TCP or TLS. */
export function createMqttControlChannel(
  options: MqttOptions = {},
): PluginDefinition<ControlChannel> {
  return {
    name: 'fleet-mqtt',
    provides: controlChannel,
    needs: [],
    create(host) {
      const api = new MqttControlChannel(host.log, options);
      return { api, stop: () => api.close(0) };
    },
  };
}
