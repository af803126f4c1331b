import { fileURLToPath } from 'node:url';

/** The top folder of the checkout, without a trailing slash. */
export const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');

/** Where everything built goes. */
export const dist = `${root}/dist`;
