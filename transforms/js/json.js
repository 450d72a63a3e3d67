// JSON that loses no digit. What a JavaScript number cannot hold is read as an ExactNumber and written as it came.

/** A number in all its digits, as JSON writes it. */
export class ExactNumber {
  /** @param {string | bigint | number} text such as `12345678901234567890.10` */
  constructor(text) {
    this.text = String(text);
    if (!/^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(this.text)) {
      throw new TypeError('an ExactNumber is made of a number as JSON writes it');
    }
    Object.freeze(this);
  }

  /** The nearest JavaScript number. */
  toNumber() {
    return Number(this.text);
  }

  toString() {
    return this.text;
  }

  toJSON() {
    return raw(this.text);
  }

  /** Calculating with it by mistake would lose digits. */
  [Symbol.toPrimitive](hint) {
    if (hint === 'string') return this.text;
    throw new TypeError('a number of the record has more digits than JavaScript calculates with; use its .text or .toNumber()');
  }
}

// Node.js before 22 has no raw JSON; a test of a transform that runs there may lose digits, a component does not.
const raw = JSON.rawJSON ?? Number;

// Integers beyond 2^53 are written in full.
if (BigInt.prototype.toJSON === undefined) {
  Object.defineProperty(BigInt.prototype, 'toJSON', {
    value() {
      return raw(this.toString());
    },
  });
}

// A number of at least 16 characters or with an exponent might not fit. What stands before it in an object or an array keeps
// most strings out of this, UUIDs above all.
const SUSPECT = /[:,[]\s*-?(?:\d[\d.]{15}|\d[\d.]*[eE])/;

/** Whether the objects and arrays of a text may hold numbers that JavaScript's own cannot: never false where they do. */
export function mayLoseDigits(text) {
  return SUSPECT.test(text);
}

/** Whether a text is not an object, an array or a string, and may be nothing but a number. */
export function isNumber(text) {
  return !/^[{["]/.test(text);
}

/** Reads a text without losing a digit. */
export function parse(text) {
  if (!mayLoseDigits(text) && !isNumber(text)) return JSON.parse(text);
  return JSON.parse(text, (_, value, context) => {
    if (typeof value !== 'number' || context === undefined) return value;
    const { source } = context;
    return source.length < 16 && !/[eE]/.test(source) ? value : exact(value, source);
  });
}

function exact(value, source) {
  return Number.isFinite(value) && canonical(String(value)) === canonical(source) ? value : new ExactNumber(source);
}

// Sign, digits without zeros at either end, and the power of ten: equal for equal numbers only.
function canonical(text) {
  const [, sign, whole, fraction = '', exponent = '0'] = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text);
  const digits = (whole + fraction).replace(/^0+/, '');
  const significant = digits.replace(/0+$/, '');
  if (significant === '') return `${sign}0`;
  const power = BigInt(exponent) - BigInt(fraction.length) + BigInt(digits.length - significant.length);
  return `${sign}${significant}e${power}`;
}

/** Writes a value; `what` names it where it is none that JSON has. */
export function write(value, what) {
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError(`${what} is a ${typeof value}, which JSON does not have`);
  return text;
}
