// Stands in for txconnect where a transform is run by Node.js, such as in its tests.

export function log(level, message) {
  console.error(`${level}: ${message}`);
}

export function counter() {}

export function takeConsole() {}
