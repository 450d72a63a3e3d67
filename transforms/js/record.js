// A record as a transform sees it, and the rows that become of it.

import { parse, write } from './json.js';
import { decode } from './columns.js';

/** What may stand in a row that is not a record. */
const FIELDS = new Set(['topic', 'value', 'bytes', 'key', 'headers', 'partition', 'offset', 'timestamp']);

export class Record {
  #values;
  #index;
  #value;
  #isRead = false;
  #bytes;

  constructor(batch, values, index) {
    this.topic = batch.topicOf(index);
    this.#values = values;
    this.#index = index;
    batch.fill(this, index);
  }

  /** The value, parsed when it is first asked for; null for a tombstone. */
  get value() {
    if (this.#isRead) return this.#value;
    const value = this.#parsed();
    // JSON's null that was only looked at does not become a tombstone.
    if (value !== null) {
      this.#value = value;
      this.#isRead = true;
    }
    return value;
  }

  set value(value) {
    this.#value = value;
    this.#isRead = true;
    this.#bytes = undefined;
  }

  /** The value as it came, for what is not JSON. */
  get bytes() {
    return this.#bytes === undefined ? this.#values.bytes(this.#index) : this.#bytes;
  }

  set bytes(bytes) {
    this.#bytes = bytes;
    this.#isRead = false;
  }

  #parsed() {
    if (this.#bytes !== undefined) return this.#bytes === null ? null : parse(decode(this.#bytes));
    return this.#values.json(this.#index);
  }

  /** The value of a row that keeps the record's: undefined where nothing has touched it. */
  static cell(record) {
    if (record.#bytes !== undefined) return checkedBytes(record.#bytes);
    if (!record.#isRead) return undefined;
    if (record.#value === null) return record.#values.isNull(record.#index) ? undefined : null;
    const text = write(record.#value, 'the value');
    // What was only looked at is as it came, unless it was written otherwise.
    return text === record.#values.text(record.#index) ? undefined : text;
  }
}

/** The new value of a row, as text or bytes; null is a tombstone, undefined the value of the record as it came. */
export function valueCell(row, record) {
  if (row instanceof Record) return Record.cell(row);
  for (const field in row) {
    if (!FIELDS.has(field)) throw new TypeError(`a row has no field \`${field}\`; fields of the record belong into \`value\``);
  }
  if (row.bytes !== undefined) {
    if (row.value !== undefined) throw new TypeError('a row has either `value` or `bytes`');
    return checkedBytes(row.bytes);
  }
  if (row.value === undefined) return Record.cell(record);
  return row.value === null ? null : write(row.value, 'the value');
}

function checkedBytes(bytes) {
  if (bytes === null || bytes instanceof Uint8Array) return bytes;
  throw new TypeError('`bytes` of a row is a Uint8Array or null');
}

/** A key or a header's value: text, bytes or null. */
export function keyCell(key) {
  if (key === null || typeof key === 'string' || key instanceof Uint8Array) return key;
  throw new TypeError('a key or the value of a header is a string, a Uint8Array or null');
}
