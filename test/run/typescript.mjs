/** Lets Node.js import TypeScript: types are taken out by esbuild, file by file, and checked elsewhere. */
import { register } from 'node:module';

register('./typescript-hooks.mjs', import.meta.url);
