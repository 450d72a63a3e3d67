// Hides account numbers but for their last four characters.

import { Failure, transform } from 'txconnect-transform';

const configSchema = {
  type: 'object',
  properties: { fields: { type: 'array', items: { type: 'string' }, description: 'The fields to mask.' } },
  required: ['fields'],
  additionalProperties: false,
};

export default transform({ name: '{{name}}', version: '1.0.0', configSchema }, (record, config) => {
  for (const field of config.fields) {
    const account = record.value[field];
    if (account === undefined) continue;
    if (typeof account !== 'string') throw new Failure('not_text', `${field} is not a text`);
    record.value[field] = masked(account);
  }
  return record;
});

/** All but dashes becomes `*`, up to the last four characters. */
export function masked(account) {
  const shown = Math.max(account.length - 4, 0);
  const parts = account.slice(0, shown).split('-');
  return parts.map((part) => '*'.repeat(part.length)).join('-') + account.slice(shown);
}
