export { runOperatorCommand } from './command.ts';
export type { OperatorWorld } from './world.ts';
