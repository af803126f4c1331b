import { Lab } from '../lab/namespaces.ts';
import { VETH } from './contestants/contestant.ts';

/** Runs the work in a fresh lab with the namespaces `a` and `b`, which a veth pair joins. */
export async function inJoinedNamespaces<Result>(
  work: (lab: Lab) => Promise<Result>,
): Promise<Result> {
  const lab = await Lab.create('culvert-bench');
  try {
    await lab.namespace('a');
    await lab.namespace('b');
    await lab.link('a', 'b', [`${VETH.a}/24`], [`${VETH.b}/24`]);
    return await work(lab);
  } finally {
    await lab.destroy();
  }
}
