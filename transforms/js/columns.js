// Columns of the interface: one byte string, or nothing, for each record.

import { isNumber, mayLoseDigits, parse } from './json.js';

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();
const NONE = new Uint8Array(0);

/** Bytes as text. Throws a TypeError where they are not UTF-8. */
export function decode(bytes) {
  return strict.decode(bytes);
}

/** Reads a column. */
export class Column {
  #data;
  #ends;
  #nulls;
  #text;
  #mayLoseDigits;

  constructor({ data, ends, nulls }) {
    this.#data = data;
    this.#ends = ends;
    this.#nulls = nulls;
  }

  isNull(index) {
    return this.#nulls.length !== 0 && this.#nulls[index] !== 0;
  }

  /** A view, not a copy; null where there is nothing. */
  bytes(index) {
    if (this.isNull(index)) return null;
    return this.#data.subarray(index === 0 ? 0 : this.#ends[index - 1], this.#ends[index]);
  }

  /** As UTF-8. Throws a TypeError where it is not. */
  text(index) {
    if (this.isNull(index)) return null;
    this.#text ??= wholeText(this.#data);
    if (this.#text === false) return decode(this.bytes(index));
    return this.#text.slice(index === 0 ? 0 : this.#ends[index - 1], this.#ends[index]);
  }

  /** Parsed as JSON; null too where there is nothing. */
  json(index) {
    const text = this.text(index);
    if (text === null) return null;
    // One look at the whole column mostly spares those at its parts.
    this.#mayLoseDigits ??= this.#text === false || mayLoseDigits(this.#text);
    return this.#mayLoseDigits || isNumber(text) ? parse(text) : JSON.parse(text);
  }
}

// One call for the whole column. Where all is ASCII, which JSON mostly is, places in the text are those in the bytes.
function wholeText(data) {
  try {
    const text = strict.decode(data);
    return text.length === data.length && text;
  } catch {
    return false;
  }
}

/** Makes a column of texts, byte strings and nulls. */
export function column(cells) {
  const ends = new Uint32Array(cells.length);
  if (cells.every((cell) => typeof cell === 'string')) {
    const text = cells.join('');
    const data = encoder.encode(text);
    // All is ASCII then.
    if (data.length === text.length) {
      for (let index = 0, end = 0; index < cells.length; index++) ends[index] = end += cells[index].length;
      return { data, ends, nulls: NONE };
    }
  }
  let nulls = NONE;
  let length = 0;
  const parts = cells.map((cell, index) => {
    if (cell === null) {
      if (nulls === NONE) nulls = new Uint8Array(cells.length);
      nulls[index] = 1;
    }
    const part = cell === null ? NONE : typeof cell === 'string' ? encoder.encode(cell) : cell;
    ends[index] = length += part.length;
    return part;
  });
  const data = new Uint8Array(length);
  parts.forEach((part, index) => data.set(part, index === 0 ? 0 : ends[index - 1]));
  return { data, ends, nulls };
}
