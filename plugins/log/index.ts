export { createLog, type LogOptions, type LogSink } from './log-sink.ts';
