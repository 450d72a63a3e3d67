// What a transform is written with: see docs/transforms-javascript.md.

import * as host from '#host';

export { transform } from './transform.js';
export { Failure } from './failure.js';
export { ExactNumber } from './json.js';

/** Lines in the log of txconnect. Long lines are cut, and of very many only the first are written. */
export const log = {
  debug: (message) => host.log('debug', String(message)),
  info: (message) => host.log('info', String(message)),
  warn: (message) => host.log('warn', String(message)),
  error: (message) => host.log('error', String(message)),
};

/** Adds to a counter of the pipeline. */
export function counter(name, delta = 1) {
  host.counter(name, BigInt(delta));
}
