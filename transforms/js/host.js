// What txconnect offers, inside a component.

import { counter, log } from 'txconnect:transform/host@1.0.0';

export { counter, log };

/** Lets `console` write to the log of txconnect: it has nowhere else to write to. */
export function takeConsole() {
  const levels = { debug: 'debug', log: 'info', info: 'info', warn: 'warn', error: 'error' };
  for (const [method, level] of Object.entries(levels)) {
    console[method] = (...words) => log(level, words.map(String).join(' '));
  }
}
