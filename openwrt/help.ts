import { EXIT_CODES } from './exit-code.ts';
import { CONFIGURATION_FILE, LOCAL_SOCKET, STATE_DIRECTORY } from './paths.ts';

const codes = Object.values(EXIT_CODES)
  .map(({ code, meaning }) => `  ${String(code).padStart(2)}  ${meaning}`)
  .join('\n');

export const HELP = `culvert: joins sites through WireGuard tunnels, steered as a fleet over MQTT

usage: culvert <command> [options]

  run       run the daemon in the foreground until SIGTERM; SIGHUP reads the file again
              --config FILE      stand alone with this configuration (${CONFIGURATION_FILE})
              --bootstrap FILE   or be a device of a fleet, which sends the configuration
              --state-dir DIR    keys and what must survive a restart (${STATE_DIRECTORY})
              --socket PATH      socket for the other commands (${LOCAL_SOCKET})
              --log-dir DIR      write the log into files there as well
              --log-level LEVEL  trace, debug, info, warn or error, whatever the configuration says
              --native FILE      the native file, where it does not lie beside this one
              --cipher NAME      seal packets with it, not with the fastest:
                                 openssl, wasm-simd, wasm, node or noble
  keygen    make the keys of this device where it has none, and print the public halves
              --state-dir DIR, --json
  status    show the tunnel, the fleet and the peers of the running daemon
              --socket PATH, --json, --watch
  paths     show how each Culvert peer is reached, what else would do, and why; and the relays
              [PEER] the one with this id alone
              --socket PATH, --json, --watch
  resources show what peers serve us and what we serve them, and why something cannot be used
              [RESOURCE] the one with this id alone, with its names and their addresses
              --socket PATH, --json, --watch
  dns       show whether queries of the LAN come here, what became of them, the servers, the proxies
              --socket PATH, --json, --watch
  nat       show the sessions of resources on both sides, those with the latest packets first
              --socket PATH, --json, --watch
  flows     print that flows of resources began and ended, as JSON, one record a line
              --follow           go on until the daemon ends
              --socket PATH
  drain     have the daemon end once no packets were exchanged for 10 s (60 s with a peer that has
            connections to resources open), or after 5 min; wait for it
              --cancel           have it stay after all
              --socket PATH
  version   print the version
  help      print this

exit codes:
${codes}
`;
