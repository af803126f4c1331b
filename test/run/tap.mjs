import { spawn } from 'node:child_process';
import { once } from 'node:events';

/**
 * Runs test files, `jobs` at a time, each in a process of its own that speaks TAP. Prints one line for each
 * file and what failed, and returns the counts. A test is a `t.test` of a file, or an assertion that stands
 * outside of one; a file that breaks without a failed test counts as one.
 *
 * tap's own runner loads TypeScript in a way that takes seconds for each file; `typescript.mjs` does not.
 */
export async function runFiles(files, { jobs, timeoutSeconds }) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const waiting = [...files];
  const work = async () => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      const counted = await runFile(file, timeoutSeconds);
      for (const kind of Object.keys(counts)) counts[kind] += counted[kind];
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
  return counts;
}

/** A process that was told to end gets this long to take its network namespaces down. */
const END_GRACE_MS = 10_000;

async function runFile(file, timeoutSeconds) {
  // Not before it is installed.
  const { Parser } = await import('tap-parser');
  const started = performance.now();
  const test = spawn(process.execPath, [...NODE_OPTIONS, file], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, TAP: '1', TAP_TIMEOUT: String(timeoutSeconds) },
  });
  const timeout = setTimeout(() => test.kill('SIGTERM'), timeoutSeconds * 1000);
  const kill = setTimeout(() => test.kill('SIGKILL'), timeoutSeconds * 1000 + END_GRACE_MS);
  const parser = new Parser();
  const results = [];
  parser.on('assert', (result) => results.push(result));
  parser.on('child', (inner) => eachSkipIn(inner, (result) => results.push(result)));
  const transcript = [];
  test.stdout.on('data', (chunk) => transcript.push(chunk));
  test.stdout.pipe(parser);
  const [code, signal] = await once(test, 'exit');
  clearTimeout(timeout);
  clearTimeout(kill);
  if (!parser.results) await once(parser, 'complete');

  const isBroken = (code !== 0 || !parser.ok) && results.every(isGood);
  if (results.length === 0 || isBroken) {
    const why = signal === null ? `ended with code ${code}` : `ended by ${signal}`;
    results.push({ ok: code === 0, fullname: why, name: file });
  }
  const failed = results.filter((result) => !isGood(result));
  const skipped = results.filter(isSkipped);
  const passed = results.length - failed.length - skipped.length;
  const ms = Math.round(performance.now() - started);
  console.log(`${failed.length > 0 ? 'FAIL' : 'ok  '} ${file}  ${ms} ms`);
  for (const result of skipped) console.log(`     skipped: ${reason(result, file)}`);
  for (const result of failed) console.log(`     failed: ${result.fullname}`);
  if (failed.length > 0) console.log(failures(Buffer.concat(transcript).toString()));
  return { passed, failed: failed.length, skipped: skipped.length };
}

const NODE_OPTIONS = [
  '--enable-source-maps',
  `--import=${new URL('typescript.mjs', import.meta.url).href}`,
];

/** A test that passes although a part of it was skipped must not hide that. */
function eachSkipIn(test, onSkip) {
  test.on('assert', (result) => isSkipped(result) && onSkip(result));
  test.on('child', (inner) => eachSkipIn(inner, onSkip));
}

function isSkipped({ skip, todo }) {
  return Boolean(skip) || Boolean(todo);
}

function isGood(result) {
  return result.ok || isSkipped(result);
}

function reason({ name, skip, todo }, file) {
  const why = typeof (skip || todo) === 'string' ? skip || todo : 'no reason given';
  return name === file.name ? why : `${name}: ${why}`;
}

/** The failed results with their diagnostics, cut out of the TAP of a whole run. */
function failures(transcript) {
  const lines = transcript.split('\n');
  const kept = [];
  let failedInside = false;
  for (let i = 0; i < lines.length; i++) {
    const [line, next = ''] = [lines[i], lines[i + 1]];
    const isFile = /^(not )?ok/.test(line);
    const isFailure = /^ *not ok/.test(line) && !/ # (SKIP|TODO)/i.test(line);
    if (isFailure) kept.push('', line);
    // A file that failed because of a test inside of it has nothing to add.
    if (isFailure && !(isFile && failedInside) && /^ *---$/.test(next)) {
      const end = next.replace('---', '...');
      do kept.push(lines[++i]);
      while (i + 1 < lines.length && lines[i] !== end);
    }
    failedInside = isFile ? false : failedInside || isFailure;
  }
  return kept.join('\n');
}
