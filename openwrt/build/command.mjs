/**
 * Runs what a script is for. What goes wrong is told by its message alone: what a compiler said, or
 * what is to be installed.
 */
export async function command(run) {
  try {
    await run();
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
