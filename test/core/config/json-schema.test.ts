import { readFileSync, writeFileSync } from 'node:fs';
import { toJsonSchema, type JsonSchema } from '@valibot/to-json-schema';
import t from 'tap';
import { getDescription } from 'valibot';
import { bootstrapSchema } from '../../../core/config/bootstrap.ts';
import { configurationSchema } from '../../../core/config/configuration.ts';

/** The published schemas; `UPDATE_SCHEMA=1 npx tap <this file>` writes them. */
const published = { configuration: configurationSchema, bootstrap: bootstrapSchema };

for (const [name, schema] of Object.entries(published)) {
  await t.test(`the published JSON Schema of the ${name} is that of the code`, (t) => {
    // The types that text is parsed into have no JSON form: what is published is the input.
    const generated = toJsonSchema(schema, {
      typeMode: 'input',
      errorMode: 'ignore',
      overrideSchema: ({ valibotSchema, jsonSchema }) => described(jsonSchema, valibotSchema),
    });
    const file = new URL(`../../../openwrt/docs/${name}.schema.json`, import.meta.url);
    if (process.env['UPDATE_SCHEMA'] === '1') {
      writeFileSync(file, `${JSON.stringify(generated, undefined, 2)}\n`);
    }
    t.same(generated, JSON.parse(readFileSync(file, 'utf8')));
    t.end();
  });
}

/** What stands behind a transformation is left out as that of the output; descriptions are of both. */
function described(json: JsonSchema, schema: object): JsonSchema {
  if ('entries' in schema) {
    for (const [key, entry] of Object.entries(schema.entries as object)) {
      describe(json.properties?.[key], entry);
    }
  }
  if ('item' in schema) describe(json.items, schema.item);
  return json;
}

function describe(json: unknown, schema: any): void {
  const description = getDescription(schema) ?? getDescription(schema.wrapped ?? schema);
  if (description !== undefined) Object.assign(json as object, { description });
}
