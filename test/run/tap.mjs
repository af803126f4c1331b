import { spawn } from 'node:child_process';

/**
 * Runs test files with tap, prints one line for each file and what failed, and returns the counts. A
 * test is a `t.test` of a file, or an assertion that stands outside of one; a file that breaks
 * without a failed test counts as one.
 */
export async function runFiles(files, { jobs, timeoutSeconds }) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  if (files.length === 0) return counts;
  const { Parser } = await import('tap-parser');
  const tap = spawn(
    'node_modules/.bin/tap',
    ['run', '--reporter=tap', `--jobs=${jobs}`, `--timeout=${timeoutSeconds}`, ...files],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const parser = new Parser();
  let results = [];
  parser.on('child', (file) => {
    file.on('assert', (result) => results.push(result));
    file.on('child', (test) => eachSkipIn(test, (result) => results.push(result)));
  });
  parser.on('assert', (file) => {
    if (results.length === 0 || (!file.ok && results.every(isGood))) results.push(file);
    const failed = results.filter((result) => !isGood(result));
    const skipped = results.filter(isSkipped);
    counts.failed += failed.length;
    counts.skipped += skipped.length;
    counts.passed += results.length - failed.length - skipped.length;
    console.log(`${failed.length > 0 ? 'FAIL' : 'ok  '} ${file.name}  ${formatMs(file.time)}`);
    for (const result of skipped) console.log(`     skipped: ${reason(result, file)}`);
    for (const result of failed) console.log(`     failed: ${result.fullname}`);
    results = [];
  });
  const transcript = [];
  tap.stdout.on('data', (chunk) => transcript.push(chunk));
  tap.stdout.pipe(parser);
  const [code] = await Promise.all([ended(tap), ended(parser)]);
  if (counts.failed > 0) console.log(failures(Buffer.concat(transcript).toString()));
  if (code !== 0 && counts.failed === 0) {
    console.log(`FAIL tap ended with code ${code}`);
    counts.failed++;
  }
  return counts;
}

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

function formatMs(ms) {
  return ms === null || ms === undefined ? '' : `${Math.round(ms)} ms`;
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

function ended(stream) {
  return new Promise((resolve) => {
    stream.on('close', resolve);
    stream.on('complete', resolve);
  });
}
