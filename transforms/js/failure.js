/** Thrown for a record that cannot be transformed: it goes the way of bad records, the others go on. */
export class Failure extends Error {
  /**
   * @param {string} code a short stable class, such as `account_missing`
   * @param {string} message what is wrong, without values of the record
   */
  constructor(code, message) {
    super(message);
    this.name = 'Failure';
    this.code = code;
  }
}

/** Whatever a user's function has thrown, as the interface names it. */
export function failureOf(error, record) {
  if (error instanceof Failure) return { record, code: String(error.code), message: error.message };
  if (!(error instanceof Error)) return { record, code: 'exception', message: String(error) };
  const place = String(error.stack ?? '').split('\n').find((line) => /:\d+:\d+/.test(line));
  const where = place === undefined ? '' : ` (${place.trim()})`;
  return { record, code: 'exception', message: `${error.name}: ${error.message}${where}` };
}
