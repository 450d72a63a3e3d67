// The interface's batches around a plain function.

import { Column, column } from './columns.js';
import { Failure, failureOf } from './failure.js';
import { Record, keyCell, valueCell } from './record.js';

const NEEDS = new Set(['keys', 'headers', 'positions']);
const SETTINGS = new Set(['name', 'version', 'needs', 'configSchema', 'init', 'tombstones']);

/** See index.d.ts. */
export function transform(about, change) {
  if (typeof change !== 'function') throw new TypeError('transform({ name, … }, (record, config) => …) takes a function');
  for (const setting in about) {
    if (!SETTINGS.has(setting)) throw new TypeError(`transform() has no setting \`${setting}\``);
  }
  const { name, version = '0.0.0', needs = [], configSchema, init = (config) => config, tombstones = false } = about;
  if (typeof name !== 'string' || name === '') throw new TypeError('transform() wants a `name`');
  for (const need of needs) {
    if (!NEEDS.has(need)) throw new TypeError(`\`needs\` knows ${[...NEEDS].join(', ')}, not \`${need}\``);
  }
  const wants = { keys: needs.includes('keys'), headers: needs.includes('headers'), positions: needs.includes('positions') };
  const schema = configSchema === undefined ? '' : JSON.stringify(configSchema);
  let config;
  return {
    describe: () => ({ name, version, needs: wants, configSchema: schema }),
    init(text) {
      try {
        config = init(JSON.parse(text));
      } catch (error) {
        // The interface's error is a text.
        throw error instanceof Error ? error.message : String(error);
      }
    },
    transform(batch) {
      return new Rows(batch, wants).of((record) => change(record, config), tombstones);
    },
  };
}

/**
 * A batch on its way through the function.
 *
 * The cells of rows by their places; a hole is what a row has from its record, and most columns never come to be. The engine
 * takes its time over each step, so there are few of them.
 */
class Rows {
  #batch;
  #wants;
  #values;
  #keys;
  #headers;
  #sources = [];
  #topics = [];
  #newValues = [];
  #newKeys = [];
  #newHeaders = [];
  #failures = [];

  constructor(batch, wants) {
    this.#batch = batch;
    this.#wants = wants;
    this.#values = new Column(batch.values);
    if (wants.keys) this.#keys = new Column(batch.keys);
    if (wants.headers) this.#headers = recordHeaders(batch.headers);
  }

  topicOf(index) {
    const { topics, topicOf } = this.#batch;
    return topics[topicOf.length === 0 ? 0 : topicOf[index]];
  }

  fill(record, index) {
    if (this.#wants.keys) record.key = this.#keys.bytes(index);
    if (this.#wants.headers) record.headers = this.#headers[index].map((header) => ({ ...header }));
    if (this.#wants.positions) {
      record.partition = this.#batch.partitions[index];
      record.offset = this.#batch.offsets[index];
      record.timestamp = Number(this.#batch.timestamps[index]);
    }
  }

  of(change, tombstones) {
    const [values, sources] = [this.#values, this.#sources];
    const count = this.#batch.values.ends.length;
    for (let index = 0; index < count; index++) {
      if (!tombstones && values.isNull(index)) {
        sources.push(index);
        continue;
      }
      const before = sources.length;
      try {
        const record = new Record(this, values, index);
        const result = change(record);
        if (result === true) sources.push(index);
        else if (Array.isArray(result)) for (const row of result) this.#take(index, record, row);
        else if (result !== undefined && result !== null && result !== false) this.#take(index, record, result);
      } catch (error) {
        this.#cutTo(before);
        this.#failures.push(failureOf(error, index));
      }
    }
    return this.#output();
  }

  #take(index, record, row) {
    if (typeof row !== 'object' || row === null) {
      throw new TypeError('a transform returns a record, an array of records, true, false, null or undefined');
    }
    if (typeof row.then === 'function') throw new TypeError('a transform cannot be async: there is nothing to wait for');
    const place = this.#sources.length;
    const value = valueCell(row, record);
    if (value !== undefined) this.#newValues[place] = value;
    const topic = row.topic ?? record.topic;
    if (topic !== this.topicOf(index)) {
      if (typeof topic !== 'string') throw new TypeError('`topic` of a row is a string');
      this.#topics[place] = topic;
    }
    if (row.key !== undefined) {
      const key = this.#changedKey(row, index);
      if (key !== undefined) this.#newKeys[place] = key;
    }
    if (row.headers !== undefined) {
      const headers = this.#changedHeaders(row, index);
      if (headers !== undefined) this.#newHeaders[place] = headers;
    }
    this.#sources.push(index);
  }

  #changedKey(row, index) {
    const key = keyCell(row.key);
    const isOld = this.#wants.keys && (key === null ? this.#keys.isNull(index) : sameBytes(key, this.#keys.bytes(index)));
    return isOld ? undefined : key;
  }

  #changedHeaders(row, index) {
    const headers = Array.from(row.headers, ({ name, value }) => ({ name: String(name), value: keyCell(value ?? null) }));
    const old = this.#headers?.[index];
    const isOld =
      old?.length === headers.length &&
      headers.every(({ name, value }, place) => name === old[place].name && value === old[place].value);
    return isOld ? undefined : headers;
  }

  #cutTo(length) {
    this.#sources.length = length;
    for (const cells of [this.#topics, this.#newValues, this.#newKeys, this.#newHeaders]) {
      cells.length = Math.min(cells.length, length);
    }
  }

  #output() {
    const headers = this.#filled(this.#newHeaders, (index) => this.#old('headers', index));
    return {
      sources: Uint32Array.from(this.#sources),
      values: columnOf(this.#filled(this.#newValues, (index) => this.#oldValue(index))),
      keys: columnOf(this.#filled(this.#newKeys, (index) => this.#old('keys', index))),
      headers: headers && headerColumns(headers),
      routing: this.#routing(),
      failures: this.#failures,
    };
  }

  /** The cells of all rows; undefined where every row has that of its record. */
  #filled(cells, old) {
    if (cells.every((cell) => cell === undefined)) return undefined;
    const sources = this.#sources;
    for (let row = 0; row < sources.length; row++) {
      if (cells[row] === undefined) cells[row] = old(sources[row]);
    }
    return cells;
  }

  // As text where all of it is at hand, because texts are joined faster.
  #oldValue(index) {
    try {
      return this.#values.text(index);
    } catch {
      return this.#values.bytes(index);
    }
  }

  #old(what, index) {
    if (!this.#wants[what]) {
      throw `some rows have new ${what} and others keep theirs: write needs: ['${what}']`;
    }
    return what === 'keys' ? this.#keys.bytes(index) : this.#headers[index];
  }

  #routing() {
    const routes = this.#filled(this.#topics, (index) => this.topicOf(index));
    if (routes === undefined) return undefined;
    const topics = [...new Set(routes)];
    const places = new Map(topics.map((topic, place) => [topic, place]));
    return { topics, topicOf: Uint32Array.from(routes, (topic) => places.get(topic)) };
  }
}

function columnOf(cells) {
  return cells && column(cells);
}

function sameBytes(key, old) {
  return key === old || (key instanceof Uint8Array && old !== null && key.length === old.length && key.every((byte, at) => byte === old[at]));
}

function recordHeaders({ counts, names, values }) {
  const [name, value] = [new Column(names), new Column(values)];
  let next = 0;
  return Array.from(counts, (count) =>
    Array.from({ length: count }, () => ({ name: name.text(next), value: value.bytes(next++) })),
  );
}

function headerColumns(rows) {
  const all = rows.flat();
  return {
    counts: Uint32Array.from(rows, (headers) => headers.length),
    names: column(all.map(({ name }) => name)),
    values: column(all.map(({ value }) => value)),
  };
}
