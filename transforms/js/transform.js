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

/** A batch on its way through the function. */
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
    const count = this.#batch.values.ends.length;
    for (let index = 0; index < count; index++) {
      if (!tombstones && this.#values.isNull(index)) {
        this.#add(index, this.topicOf(index), undefined, undefined, undefined);
        continue;
      }
      const before = this.#sources.length;
      try {
        const record = new Record(this, this.#values, index);
        this.#take(index, record, change(record));
      } catch (error) {
        this.#cutTo(before);
        this.#failures.push(failureOf(error, index));
      }
    }
    return this.#output();
  }

  #take(index, record, result) {
    if (result === undefined || result === null || result === false) return;
    if (result === true) this.#add(index, this.topicOf(index), undefined, undefined, undefined);
    else if (Array.isArray(result)) for (const row of result) this.#takeRow(index, record, row);
    else this.#takeRow(index, record, result);
  }

  #takeRow(index, record, row) {
    if (typeof row !== 'object' || row === null) {
      throw new TypeError('a transform returns a record, an array of records, true, false, null or undefined');
    }
    if (typeof row.then === 'function') throw new TypeError('a transform cannot be async: there is nothing to wait for');
    const value = valueCell(row, record);
    const topic = row.topic ?? record.topic;
    if (typeof topic !== 'string') throw new TypeError('`topic` of a row is a string');
    this.#add(index, topic, value, this.#changedKey(row, index), this.#changedHeaders(row, index));
  }

  #changedKey(row, index) {
    if (row.key === undefined) return undefined;
    const key = keyCell(row.key);
    const isOld = this.#wants.keys && (key === null ? this.#keys.isNull(index) : sameBytes(key, this.#keys.bytes(index)));
    return isOld ? undefined : key;
  }

  #changedHeaders(row, index) {
    if (row.headers === undefined) return undefined;
    const headers = Array.from(row.headers, ({ name, value }) => ({ name: String(name), value: keyCell(value ?? null) }));
    const old = this.#headers?.[index];
    const isOld =
      old?.length === headers.length &&
      headers.every(({ name, value }, place) => name === old[place].name && value === old[place].value);
    return isOld ? undefined : headers;
  }

  #add(index, topic, value, key, headers) {
    this.#sources.push(index);
    this.#topics.push(topic);
    this.#newValues.push(value);
    this.#newKeys.push(key);
    this.#newHeaders.push(headers);
  }

  #cutTo(length) {
    for (const list of [this.#sources, this.#topics, this.#newValues, this.#newKeys, this.#newHeaders]) list.length = length;
  }

  #output() {
    const sources = this.#sources;
    const changed = (cells) => cells.some((cell) => cell !== undefined);
    const filled = (cells, old) => column(cells.map((cell, row) => (cell === undefined ? old(sources[row]) : cell)));
    return {
      sources: Uint32Array.from(sources),
      values: changed(this.#newValues) ? filled(this.#newValues, (index) => this.#oldValue(index)) : undefined,
      keys: changed(this.#newKeys) ? filled(this.#newKeys, (index) => this.#old('keys', index)) : undefined,
      headers: changed(this.#newHeaders)
        ? headerColumns(this.#newHeaders.map((headers, row) => headers ?? this.#old('headers', sources[row])))
        : undefined,
      routing: this.#routing(),
      failures: this.#failures,
    };
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
    if (this.#sources.every((index, row) => this.#topics[row] === this.topicOf(index))) return undefined;
    const places = new Map();
    const topicOf = Uint32Array.from(this.#topics, (topic) => {
      if (!places.has(topic)) places.set(topic, places.size);
      return places.get(topic);
    });
    return { topics: [...places.keys()], topicOf };
  }
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
