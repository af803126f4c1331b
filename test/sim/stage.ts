import { ipFamily, type IpFamily } from '../../core/net/ip-address.ts';
import { socketAddressIp } from '../../core/net/socket-address.ts';
import { unreachable } from '../../core/sansio/outcome.ts';
import type { Arenas } from './arenas.ts';
import { Broker } from './broker.ts';
import { crypto } from './crypto.ts';
import { Device } from './device.ts';
import type { Gateway } from './gateway.ts';
import type { Host } from './host.ts';
import type { Network } from './network.ts';
import type { Call } from './recording.ts';
import type { Scenario, SideName, SideScenario, Upset } from './scenario.ts';
import { TurnServer } from './turn-server.ts';
import { World } from './world.ts';
import { WorldStreams } from './world-streams.ts';

const USER = 'r1';
const PASSWORD = 'relay secret';
/** Where routers listen for streams. */
export const STREAM_PORT = 443;

interface Side {
  readonly device: Device;
  readonly host: Host;
  /** What the router hangs on, the outermost last; none where it is on the Internet itself. */
  readonly gateways: readonly Gateway[];
}

/** A scenario set up in a world, with engines at both sides. Its upsets are on the timeline. */
export class Stage {
  readonly world: World;
  readonly broker: Broker;
  readonly relays: readonly { readonly host: Host; readonly server: TurnServer }[];
  /** Tells everybody's address, and relays nothing. */
  readonly mirror: TurnServer;
  readonly #mirrorHost: Host;
  readonly #streams: WorldStreams | undefined;
  readonly sides: Readonly<Record<SideName, Side>>;

  /** `calls` takes down every call of the engine at a. */
  constructor(scenario: Scenario, arenas: Arenas, calls?: Call[]) {
    this.world = new World(scenario.seed);
    const { timeline, random, internet } = this.world;
    this.broker = new Broker(timeline, random);
    this.#streams = scenario.hasStreams ? new WorldStreams(this.world) : undefined;
    this.relays = scenario.relays.map((state, i) => {
      const line = { latency: 10 + 20 * i };
      const host = this.world.host(`relay ${i}`, internet, { families: [4, 6], line });
      const users = new Map([[USER, PASSWORD]]);
      const server = new TurnServer({ host, random, crypto, users });
      this.#streams?.serve(host, server);
      if (state === 'dead') server.stop();
      return { host, server };
    });
    this.#mirrorHost = this.world.host('mirror', internet, { families: [4, 6] });
    this.mirror = new TurnServer({ host: this.#mirrorHost, random, crypto, users: new Map() });
    const { seed, loss, bursts } = scenario;
    const wan = { loss: loss / 2, bursts };
    const carrier = (): ReturnType<World['network']> => this.world.network({ behind: 'cgnat' });
    const shared = scenario.isSameCarrier ? carrier() : undefined;
    const side = (name: SideName): Side => {
      const { nat, isBehindCarrier, ipv6 } = scenario[name];
      const around = shared ?? (isBehindCarrier ? carrier() : undefined);
      const [network, gateways] = this.#network(nat, ipv6, around, wan);
      const families: readonly IpFamily[] = ipv6 === 'none' ? [4] : [4, 6];
      const line = network === internet ? { line: wan } : {};
      const host = this.world.host(name, network, { families, ...line });
      const number = name === 'a' ? 1 : 2;
      const address = `10.0.0.${number}`;
      const broker = this.broker;
      const tcp = this.#streams;
      const device = new Device({
        name,
        host,
        address,
        seed: seed * 10 + number,
        broker,
        arenas,
        ...(calls && name === 'a' && { calls }),
        ...(tcp && { streams: () => tcp.createStreams(host) }),
      });
      return { device, host, gateways };
    };
    this.sides = { a: side('a'), b: side('b') };
    for (const name of ['a', 'b'] as const) {
      timeline.in(scenario[name].startsAt, () => this.#configure(name));
    }
    for (const { at, upset } of scenario.upsets) timeline.in(at, () => this.#upset(upset));
  }

  /** At the end: its arenas serve the next one. */
  dispose(): void {
    for (const { device } of Object.values(this.sides)) device.dispose();
  }

  #network(
    nat: SideScenario['nat'],
    ipv6: SideScenario['ipv6'],
    carrier: { readonly network: Network; readonly gateway: Gateway } | undefined,
    wan: object,
  ): [Network, readonly Gateway[]] {
    const outside = carrier?.network ?? this.world.internet;
    const outer = carrier === undefined ? [] : [carrier.gateway];
    if (nat === 'none') return [outside, outer];
    const isOpen = ipv6 === 'open';
    const { network, gateway } = this.world.network({ behind: nat, outside, isOpen, wan });
    return [network, [gateway, ...outer]];
  }

  #configure(name: SideName): void {
    const own = this.sides[name].device;
    const peer = this.sides[name === 'a' ? 'b' : 'a'].device;
    const transports = this.#streams === undefined ? ['udp'] : ['udp', 'tcp'];
    const relays = this.relays.flatMap(({ server }) =>
      transports.map((transport) => ({
        url: `turn:${server.address(4)}?transport=${transport}`,
        username: USER,
        credential: PASSWORD,
      })),
    );
    own.configure({
      interface: { addresses: [`${own.address}/24`] },
      relays: [{ url: `stun:${this.mirror.address(4)}` }, ...relays],
      ...(this.#streams && { streams: { listenPort: STREAM_PORT } }),
      peers: [
        {
          id: peer.name,
          kind: 'culvert',
          publicKey: peer.publicKey,
          allowedIps: [`${peer.address}/32`],
        },
      ],
    });
  }

  #upset(upset: Upset): void {
    const { timeline } = this.world;
    const side = 'side' in upset ? this.sides[upset.side] : undefined;
    const relay = 'relay' in upset ? this.relays[upset.relay]?.server : undefined;
    switch (upset.type) {
      case 'rebind':
        if (side !== undefined && side.gateways.length > 0) this.#streams?.reset(side.host);
        return side?.gateways[0]?.rebind();
      case 'readdress':
        return side && this.#readdress(side);
      case 'restart':
        return side?.device.restart(upset.for);
      case 'partition':
        this.broker.partition(upset.side);
        return timeline.in(upset.for, () => this.broker.heal(upset.side));
      case 'outage': {
        const { link } = side?.gateways[0] ?? side?.host ?? { link: undefined };
        if (link === undefined) return undefined;
        link.isDown = true;
        return timeline.in(upset.for, () => {
          link.isDown = false;
        });
      }
      case 'sleep':
        this.broker.partition(upset.side);
        side?.host.sleep(upset.for, upset);
        return timeline.in(upset.for, () => this.broker.heal(upset.side));
      case 'relay-reboot':
        return relay?.isRunning === true ? relay.reboot() : undefined;
      case 'relay-stop':
        return relay?.stop();
      case 'block-direct':
        return this.#blockDirect(upset.for);
      default:
        return unreachable(upset);
    }
  }

  /** The provider gives another address, to the outermost NAT or to the router itself. */
  #readdress({ gateways, host, device }: Side): void {
    const { internet } = this.world;
    const outermost = gateways.at(-1);
    const [ipv4, ipv6] = (outermost?.outside ?? internet).newAddresses();
    if (outermost !== undefined) return outermost.readdress(ipv4);
    const next = [ipv4, ipv6];
    device.readdress(next.filter((address) => host.address(ipFamily(address)) !== undefined));
  }

  /** Everything between the two but what goes by relays is dropped, somewhere in the Internet. */
  #blockDirect(ms: number): void {
    const hosts = [this.#mirrorHost, ...this.relays.map(({ host }) => host)];
    const relays = new Set(hosts.flatMap(({ addresses }) => addresses));
    const lift = this.world.internet.block(
      ({ from, to }) => !relays.has(socketAddressIp(from)) && !relays.has(socketAddressIp(to)),
    );
    this.world.timeline.in(ms, lift);
  }
}
