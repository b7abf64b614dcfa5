// A WebAssembly assembler in which an instruction is a function of its operands: WebAssembly is a stack machine, so the
// code of f(a, b) is the code of a, the code of b, and f's own bytes. The numbers are those of the specification.

const SIMD = 0xfd;

/** Unsigned and signed integers in base 128, least significant digit first. */
function unsigned(value) {
  const digits = [];
  do {
    digits.push((value & 127) | (value > 127 ? 128 : 0));
    value >>>= 7;
  } while (value);
  return digits;
}

function signed(value) {
  const digits = [];
  for (;;) {
    const digit = value & 127;
    value >>= 7;
    if ((value === 0 && !(digit & 64)) || (value === -1 && digit & 64)) return [...digits, digit];
    digits.push(digit | 128);
  }
}

const op =
  (...code) =>
  (...operands) => [...operands.flat(), ...code];
const simd = (number) => op(SIMD, ...unsigned(number));
const ALIGNMENT = { 4: 2, 16: 4 }; // of 4 and of 16 bytes, as a power of two
const access = (number, bytes) => (address, offset, ...value) => [
  ...address, ...value.flat(), SIMD, ...unsigned(number), ALIGNMENT[bytes], ...unsigned(offset),
]; // prettier-ignore

export const get = (local) => [0x20, ...unsigned(local.index)];
export const set = (local, value) => [...value, 0x21, ...unsigned(local.index)];

export const i32 = {
  const: (value) => [0x41, ...signed(value)],
  add: op(0x6a),
  sub: op(0x6b),
  mul: op(0x6c),
  shl: op(0x74),
  lessThan: op(0x49), // of unsigned numbers
};

export const v128 = {
  load: access(0x00, 16),
  splat: access(0x09, 4), // one float from memory in all four lanes
  store: access(0x0b, 16),
};

const lanes = (bytes) => [SIMD, ...unsigned(0x0c), ...bytes, ...bytes, ...bytes, ...bytes];

export const f32x4 = {
  const: (value) => lanes(new Uint8Array(Float32Array.of(value).buffer)),
  nearest: simd(0x6a),
  neg: simd(0xe1),
  add: simd(0xe4),
  sub: simd(0xe5),
  mul: simd(0xe6),
  div: simd(0xe7),
  min: simd(0xe8),
  max: simd(0xe9),
};

export const i32x4 = {
  const: (value) => lanes(new Uint8Array(Int32Array.of(value).buffer)),
  fromFloat: simd(0xf8), // truncated
  shiftLeft: simd(0xab),
  add: simd(0xae),
};

const EMPTY = 0x40; // a block that returns nothing

/** Run the body again while the condition holds; at least once. */
export const repeat = (body, condition) => [0x03, EMPTY, ...body.flat(), ...condition, 0x0d, 0, 0x0b];
export const when = (condition, body) => [...condition, 0x04, EMPTY, ...body.flat(), 0x0b];

const TYPES = { i32: 0x7f, v128: 0x7b };
const vector = (items) => [...unsigned(items.length), ...items.flat()];
const section = (id, items) => [id, ...sized(vector(items))];
const sized = (bytes) => [...unsigned(bytes.length), ...bytes];
const text = (string) => sized([...new TextEncoder().encode(string)]);

/**
 * A module that exports its memory and functions.
 *
 * @param {number} pages of 64 KiB
 * @param {Object<string, function>} functions by name: each takes `parameter()`, `integer()` and `lanes()`, which declare
 *     its locals (parameters, which are integers, first), and returns the bytes of its body
 */
export function assemble(pages, functions) {
  const compiled = Object.values(functions).map((define) => {
    const locals = [];
    const declare = (type) => () => {
      locals.push(type);
      return { index: locals.length - 1 };
    };
    let parameters = 0;
    const parameter = () => {
      parameters++;
      return declare("i32")();
    };
    const body = define(parameter, declare("i32"), declare("v128"));
    const types = Array(parameters).fill([TYPES.i32]);
    return { types, code: sized([...vector(locals.slice(parameters).map((t) => [1, TYPES[t]])), ...body, 0x0b]) };
  });
  const names = Object.keys(functions);
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // "\0asm", version 1
    ...section(1, compiled.map(({ types }) => [0x60, ...vector(types), 0])),
    ...section(3, names.map((_, i) => unsigned(i))),
    ...section(5, [[0, ...unsigned(pages)]]),
    ...section(7, [[...text("memory"), 2, 0], ...names.map((name, i) => [...text(name), 0, ...unsigned(i)])]),
    ...section(10, compiled.map(({ code }) => code)),
  ]); // prettier-ignore
}
