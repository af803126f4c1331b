/** Where things lie on a router unless the command line says otherwise. */
export const STATE_DIRECTORY = '/etc/culvert';
export const CONFIGURATION_FILE = '/etc/culvert/culvert.json';
export const LOCAL_SOCKET = '/var/run/culvert.sock';
/** The directory is wireguard-tools' convention. */
export const UAPI_DIRECTORY = '/var/run/wireguard';
