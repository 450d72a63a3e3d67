import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ExactNumber, Failure, transform } from 'txconnect-transform';

const bytes = (text) => new TextEncoder().encode(text);
const text = (view) => (view === null ? null : new TextDecoder().decode(view));

function column(cells) {
  const parts = cells.map((cell) => (cell === null ? new Uint8Array(0) : typeof cell === 'string' ? bytes(cell) : cell));
  let end = 0;
  const ends = Uint32Array.from(parts, (part) => (end += part.length));
  const data = Uint8Array.from(parts.flatMap((part) => [...part]));
  const nulls = cells.includes(null) ? Uint8Array.from(cells, (cell) => Number(cell === null)) : new Uint8Array(0);
  return { data, ends, nulls };
}

function cells({ data, ends, nulls }) {
  return Array.from(ends, (end, index) => (nulls[index] ? null : text(data.subarray(index === 0 ? 0 : ends[index - 1], end))));
}

function batch(values, more = {}) {
  const none = column([]);
  return {
    topics: ['payments'],
    topicOf: new Uint32Array(0),
    partitions: new Int32Array(0),
    offsets: new BigInt64Array(0),
    timestamps: new BigInt64Array(0),
    keys: none,
    headers: { counts: new Uint32Array(0), names: none, values: none },
    ...more,
    values: column(values),
  };
}

function run(change, values, { about = {}, config = 'null', ...more } = {}) {
  const made = transform({ name: 'tested', ...about }, change);
  made.init(config);
  const output = made.transform(batch(values, more));
  return { ...output, sources: [...output.sources] };
}

test('a record that is returned as it is costs nothing', () => {
  for (const change of [(record) => record, (record) => ({ ...record }), () => true, (record) => (record.value.a, record)]) {
    const output = run(change, ['{"a":1}', '{"a":"ü"}']);
    assert.deepEqual(output.sources, [0, 1]);
    assert.deepEqual([output.values, output.keys, output.headers, output.routing], Array(4).fill(undefined));
    assert.deepEqual(output.failures, []);
  }
});

test('a value is replaced, or changed in place', () => {
  const ways = [
    (record) => ({ ...record, value: { ...record.value, b: 2 } }),
    (record) => ({ value: { ...record.value, b: 2 } }),
    (record) => {
      record.value.b = 2;
      return record;
    },
    (record) => {
      record.value.b = 2;
      return { ...record, topic: record.topic };
    },
    (record) => {
      record.value = { ...record.value, b: 2 };
      return record;
    },
  ];
  for (const change of ways) {
    assert.deepEqual(cells(run(change, ['{"a":"ü"}', '{"a":1}']).values), ['{"a":"ü","b":2}', '{"a":1,"b":2}']);
  }
});

test('false, null and undefined drop a record, an array makes several rows', () => {
  const answers = [false, null, undefined, [], [{ value: 1 }, { value: 2 }], true];
  const output = run((record) => answers[record.value], ['0', '1', '2', '3', '4', '5']);
  assert.deepEqual(output.sources, [4, 4, 5]);
  assert.deepEqual(cells(output.values), ['1', '2', '5']);
});

test('a topic routes a row, and the others keep theirs', () => {
  const more = { topics: ['a', 'b'], topicOf: Uint32Array.of(0, 1, 1) };
  const change = (record) => (record.value === 1 ? { ...record, topic: 'refunds' } : record);
  const { routing } = run(change, ['0', '1', '2'], more);
  assert.deepEqual(Array.from(routing.topicOf, (place) => routing.topics[place]), ['a', 'refunds', 'b']);
});

test('tombstones pass untouched unless they are asked for', () => {
  const drop = () => null;
  assert.deepEqual(run(drop, ['1', null]).sources, [1]);
  assert.deepEqual(run(drop, ['1', null], { about: { tombstones: true } }).sources, []);
  const output = run((record) => ({ value: record.value === null ? 'gone' : null }), ['1', null], { about: { tombstones: true } });
  assert.deepEqual(cells(output.values), [null, '"gone"']);
  const look = (record) => (record.value === null, record);
  assert.equal(run(look, ['null', null], { about: { tombstones: true } }).values, undefined);
  // Beside changed values they stay without one.
  assert.deepEqual(cells(run(() => ({ value: 2 }), ['1', null]).values), ['2', null]);
});

test('what is thrown fails its record alone, and none of its rows stay', () => {
  const change = ({ value }) => {
    if (value === 1) throw new Failure('account_missing', 'no account');
    if (value === 2) return [{ value: 0 }, { values: 0 }];
    if (value === 3) return value.account.number;
    if (value === 4) throw 'a text';
    return true;
  };
  const output = run(change, ['0', '1', '2', '3', '4', '5', '{']);
  assert.deepEqual(output.sources, [0, 5]);
  assert.equal(output.values, undefined);
  assert.deepEqual(output.failures.map(({ record, code }) => [record, code]), [
    [1, 'account_missing'],
    [2, 'exception'],
    [3, 'exception'],
    [4, 'exception'],
    [6, 'exception'],
  ]);
  assert.equal(output.failures[0].message, 'no account');
  assert.match(output.failures[1].message, /no field `values`/);
  assert.match(output.failures[2].message, /^TypeError: .*transform\.test\.js/s);
});

test('answers that are none are refused with the way out', () => {
  const refused = [
    [() => 'text', /returns a record/],
    [async (record) => record, /cannot be async/],
    [() => ({ value: () => 1 }), /JSON does not have/],
    [() => ({ value: 1, bytes: bytes('1') }), /either/],
    [() => ({ bytes: 'text' }), /Uint8Array/],
    [() => ({ key: 7 }), /a key/],
    [() => ({ topic: 7 }), /`topic`/],
  ];
  for (const [change, why] of refused) {
    const { failures } = run(change, ['1']);
    assert.equal(failures.length, 1);
    assert.match(failures[0].message, why);
  }
});

test('keys are seen where they are needed, and set without', () => {
  const keys = column(['k', null]);
  const about = { needs: ['keys'] };
  const seen = [];
  const same = run((record) => (seen.push(text(record.key)), { ...record }), ['1', '2'], { about, keys });
  assert.deepEqual(seen, ['k', null]);
  assert.equal(same.keys, undefined);
  const one = run((record) => (record.value === 1 ? { ...record, key: 'new' } : record), ['1', '2'], { about, keys });
  assert.deepEqual(cells(one.keys), ['new', null]);
  assert.deepEqual(cells(run(() => ({ key: null }), ['1', '2']).keys), [null, null]);
  assert.throws(
    () => run((record) => (record.value === 1 ? { key: 'new' } : true), ['1', '2']),
    (error) => /needs: \['keys'\]/.test(error),
  );
});

test('headers are seen, added and left alone', () => {
  const about = { needs: ['headers'] };
  const headers = { counts: Uint32Array.of(2, 0), names: column(['a', 'b']), values: column(['1', null]) };
  assert.equal(run((record) => ({ ...record }), ['1', '2'], { about, headers }).headers, undefined);
  const add = (record) => ({ ...record, headers: [...record.headers, { name: 'c', value: 'ü' }] });
  const output = run(add, ['1', '2'], { about, headers }).headers;
  assert.deepEqual([...output.counts], [3, 1]);
  assert.deepEqual(cells(output.names), ['a', 'b', 'c', 'c']);
  assert.deepEqual(cells(output.values), ['1', null, 'ü', 'ü']);
});

test('positions are seen where they are needed', () => {
  const positions = { partitions: Int32Array.of(3), offsets: BigInt64Array.of(2n ** 60n), timestamps: BigInt64Array.of(-1n) };
  let seen;
  run((record) => void (seen = record), ['1'], { about: { needs: ['positions'] }, ...positions });
  assert.deepEqual([seen.partition, seen.offset, seen.timestamp], [3, 2n ** 60n, -1]);
});

test('values that are not JSON are read and written as bytes', () => {
  const reverse = (record) => ({ bytes: record.bytes.slice().reverse() });
  const output = run(reverse, [Uint8Array.of(0xff, 1), 'ab']);
  assert.deepEqual([...output.values.data], [1, 0xff, 98, 97]);
  const one = run((record) => (record.bytes[0] === 0xff ? true : { value: 'ü' }), [Uint8Array.of(0xff), 'a']);
  assert.deepEqual([...one.values.data], [0xff, ...bytes('"ü"')]);
  assert.match(run((record) => ({ value: record.value }), [Uint8Array.of(0xff)]).failures[0].message, /TypeError/);
});

test('the config is prepared once, and one that does not fit is refused with the reason', () => {
  let times = 0;
  const about = {
    init(config) {
      times += 1;
      if (config === null) throw new Error('`fields` is missing');
      return new Set(config.fields);
    },
  };
  const output = run((record, fields) => fields.has(record.value), ['"a"', '"b"'], { about, config: '{"fields":["b"]}' });
  assert.deepEqual(output.sources, [1]);
  assert.equal(times, 1);
  assert.throws(() => run(() => true, [], { about }), (error) => error === '`fields` is missing');
});

test('mistakes in what a transform says about itself are found when it is made', () => {
  assert.throws(() => transform({}, () => true), /name/);
  assert.throws(() => transform({ name: 'a' }), /function/);
  assert.throws(() => transform({ name: 'a', need: ['keys'] }, () => true), /`need`/);
  assert.throws(() => transform({ name: 'a', needs: ['key'] }, () => true), /`key`/);
});

test('an exact number says what it is, and is not calculated with by mistake', () => {
  const number = new ExactNumber('12345678901234567890.10');
  assert.equal(`${number}`, '12345678901234567890.10');
  assert.equal(number.toNumber(), 12345678901234567890.1);
  assert.throws(() => number + 1, /more digits/);
  assert.throws(() => number > 1, /more digits/);
  for (const wrong of ['', '1.', '.5', '01', '1e', 'NaN', ' 1', '"']) assert.throws(() => new ExactNumber(wrong), TypeError);
});

test('no digit of a number is lost', { skip: JSON.rawJSON === undefined && 'Node.js 22 is the first with raw JSON' }, () => {
  const value =
    '{"a":12345678901234567890,"b":-0.12345678901234567890,"c":1e400,"d":12.50,"e":[1788322741168.25,9007199254740993],"f":"1234567890123456789"}';
  const output = run((record) => ({ ...record, value: { ...record.value, g: 2n ** 64n, h: new ExactNumber('1.10') } }), [value]);
  const [written] = cells(output.values);
  // Alone, behind blanks, and beside what is not ASCII.
  const same = ['12345678901234567890', ' [ 0.12345678901234567890 ]', '{"a":"ü","b":1e-400}', '-9007199254740993'];
  const copied = run((record) => ({ value: [record.value] }), same);
  assert.deepEqual(cells(copied.values), same.map((text) => `[${text.replaceAll(' ', '')}]`));
  assert.equal(written, `${value.slice(0, -1).replace('12.50', '12.5')},"g":18446744073709551616,"h":1.10}`);
});
