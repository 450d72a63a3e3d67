// What txconnect offers, inside a component.
export { log, counter } from 'txconnect:transform/host@1.0.0';
