import { readFileSync, writeFileSync } from 'node:fs';
import { toJsonSchema } from '@valibot/to-json-schema';
import t from 'tap';
import { bootstrapSchema } from '../../../core/config/bootstrap.ts';
import { configurationSchema } from '../../../core/config/configuration.ts';

/** The published schemas; `UPDATE_SCHEMA=1 npx tap <this file>` writes them. */
const published = { configuration: configurationSchema, bootstrap: bootstrapSchema };

for (const [name, schema] of Object.entries(published)) {
  await t.test(`the published JSON Schema of the ${name} is that of the code`, (t) => {
    // The types that text is parsed into have no JSON form: what is published is the input.
    const generated = toJsonSchema(schema, { typeMode: 'input', errorMode: 'ignore' });
    const file = new URL(`../../../openwrt/docs/${name}.schema.json`, import.meta.url);
    if (process.env['UPDATE_SCHEMA'] === '1') {
      writeFileSync(file, `${JSON.stringify(generated, undefined, 2)}\n`);
    }
    t.same(generated, JSON.parse(readFileSync(file, 'utf8')));
    t.end();
  });
}
