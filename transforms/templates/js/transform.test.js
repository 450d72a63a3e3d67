import assert from 'node:assert/strict';
import { test } from 'node:test';

import { masked } from './transform.js';

test('the last four characters and the dashes stay', () => {
  assert.equal(masked('aad71e75-cde2-488e-a280-938ad5a104f2'), '********-****-****-****-********04f2');
  assert.equal(masked('abc'), 'abc');
});
