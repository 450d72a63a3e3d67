// Columns of the interface: one byte string, or nothing, for each record.

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
    // One call for the whole column. Where all is ASCII, which JSON mostly is, places in the text are those in the bytes.
    this.#text ??= wholeText(this.#data);
    if (this.#text === false) return decode(this.bytes(index));
    return this.#text.slice(index === 0 ? 0 : this.#ends[index - 1], this.#ends[index]);
  }
}

function wholeText(data) {
  try {
    const text = strict.decode(data);
    return text.length === data.length && text;
  } catch {
    return false;
  }
}

const NOT_ASCII = /[^\0-\x7f]/;

/** Makes a column of texts, byte strings and nulls. */
export function column(cells) {
  let data = NONE;
  const ends = new Uint32Array(cells.length);
  let nulls = NONE;
  if (cells.every((cell) => typeof cell === 'string')) {
    const text = cells.join('');
    if (!NOT_ASCII.test(text)) {
      data = encoder.encode(text);
      for (let index = 0, end = 0; index < cells.length; index++) ends[index] = end += cells[index].length;
      return { data, ends, nulls };
    }
  }
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
  data = new Uint8Array(length);
  parts.forEach((part, index) => data.set(part, index === 0 ? 0 : ends[index - 1]));
  return { data, ends, nulls };
}
