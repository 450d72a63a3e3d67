/** A header of a record. */
export interface Header {
  name: string;
  value: Uint8Array | null;
}

/** A header of a row; text is written as UTF-8. */
export interface NewHeader {
  name: string;
  value?: Uint8Array | string | null;
}

/** A record. It may be changed and returned, or copied with `{ ...record, … }`. */
export interface Record<Value = any> {
  /** The topic it was read from; a row goes to another table where this is set to one of `output.topics`. */
  topic: string;
  /** The value, parsed when it is first asked for; null is a tombstone. */
  value: Value;
  /** The value as it came, for what is not JSON. */
  bytes: Uint8Array | null;
  /** With `needs: ['keys']`. */
  key?: Uint8Array | string | null;
  /** With `needs: ['headers']`. */
  headers?: (Header | NewHeader)[];
  /** With `needs: ['positions']`, as the next two. */
  readonly partition?: number;
  readonly offset?: bigint;
  /** Milliseconds since 1970; -1 where the broker gave none. */
  readonly timestamp?: number;
}

/** What becomes of a record. What is not named stays as it is in the record. */
export interface Row<Value = any> {
  topic?: string;
  /** Written as JSON; null is a tombstone. */
  value?: Value;
  /** In place of `value`, where it is not JSON. */
  bytes?: Uint8Array | null;
  key?: Uint8Array | string | null;
  headers?: NewHeader[];
  readonly partition?: number;
  readonly offset?: bigint;
  readonly timestamp?: number;
}

/** One row, several, the record as it came (true), or none: the record is filtered out. */
export type Result<Value = any> = Row<Value> | Row<Value>[] | boolean | null | undefined | void;

/** What a transform says about itself. */
export interface About<Config = any, Prepared = Config> {
  /** A short name, such as `mask-account`. */
  name: string;
  /** Its version. Default `0.0.0`. */
  version?: string;
  /** What it wants to see of a record beside topic and value. */
  needs?: ('keys' | 'headers' | 'positions')[];
  /** A JSON Schema (2020-12) for its `config` in a pipeline file; `{}` takes any. Without one, it takes none. */
  configSchema?: object;
  /** Makes of the config what the function is given. What it throws is the reason why a pipeline does not start. */
  init?: (config: Config) => Prepared;
  /** Whether it is given tombstones (records without a value) too. Default false: they pass untouched. */
  tombstones?: boolean;
}

/** A transform, as txconnect calls it. */
export interface Transform {
  describe(): { name: string; version: string; needs: object; configSchema: string };
  init(config: string): void;
  transform(batch: object): object;
}

/** Makes a transform of a function; the default export of transform.js. */
export function transform<Value = any, Config = any, Prepared = Config>(
  about: About<Config, Prepared>,
  change: (record: Record<Value>, config: Prepared) => Result,
): Transform;

/** Thrown for a record that cannot be transformed: it goes the way of bad records, the others go on. */
export class Failure extends Error {
  /**
   * @param code a short stable class, such as `account_missing`
   * @param message what is wrong, without values of the record
   */
  constructor(code: string, message: string);
  readonly code: string;
}

/** A number in all its digits, where JavaScript's own would lose some. It is written as it came. */
export class ExactNumber {
  /** @param text a number as JSON writes it, such as `12345678901234567890.10` */
  constructor(text: string | bigint | number);
  readonly text: string;
  /** The nearest JavaScript number. */
  toNumber(): number;
  toString(): string;
}

/** Lines in the log of txconnect. Long lines are cut, and of very many only the first are written. */
export const log: {
  debug(message: unknown): void;
  info(message: unknown): void;
  warn(message: unknown): void;
  error(message: unknown): void;
};

/** Adds to a counter of the pipeline. At most 64 names count, each of at most 64 bytes. */
export function counter(name: string, delta?: number | bigint): void;
