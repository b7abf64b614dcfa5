// The inner loops of training: products of matrices, and SiLU. Four floats at a time in WebAssembly, assembled here when
// the page loads; or the same loops in plain JavaScript where the browser has no SIMD.

import { assemble, f32x4, get, i32, i32x4, repeat, set, v128, when } from "./assembler.js";

const PAGES = 64; // 4 MiB, of which the largest network and batch use about half
const ROWS = 4; // of a product's tile, which is 4 x 8 or 4 x 4 and stays in registers

/**
 * C (+)= A B for A (M, K), B (K, N), C (M, N), where A's element (m, k) is `rowStride` m + `innerStride` k bytes behind
 * its address, so that A may be stored transposed. M is a multiple of 4; N of 4 or 8, the tile's columns.
 */
const product = (vectors) => (parameter, integer, lanes) => {
  const [a, b, c, M, N, K, rowStride, innerStride, adds] = Array.from({ length: 9 }, parameter);
  const [m, n, k, atA, atB, atC, rowBytes] = Array.from({ length: 7 }, integer);
  const tile = Array.from({ length: ROWS }, () => Array.from({ length: vectors }, lanes));
  const columns = Array.from({ length: vectors }, lanes);
  const element = lanes();
  const each = (f) => tile.flatMap((row, r) => row.map((sum, v) => f(sum, r, v))).flat();
  const rowOf = (base, stride, r) => (r ? i32.add(get(base), i32.mul(get(stride), i32.const(r))) : get(base));
  return [
    set(rowBytes, i32.shl(get(N), i32.const(2))),
    repeat(
      [
        set(n, i32.const(0)),
        repeat(
          [
            each((sum) => set(sum, f32x4.const(0))),
            set(atA, i32.add(get(a), i32.mul(get(m), get(rowStride)))),
            set(atB, i32.add(get(b), get(n))),
            set(k, get(K)),
            repeat(
              [
                columns.flatMap((column, v) => set(column, v128.load(get(atB), 16 * v))),
                tile.flatMap((row, r) => [
                  ...set(element, v128.splat(rowOf(atA, rowStride, r), 0)),
                  ...row.flatMap((sum, v) => set(sum, f32x4.add(get(sum), f32x4.mul(get(element), get(columns[v]))))),
                ]),
                set(atA, i32.add(get(atA), get(innerStride))),
                set(atB, i32.add(get(atB), get(rowBytes))),
                set(k, i32.sub(get(k), i32.const(1))),
              ],
              get(k),
            ),
            set(atC, i32.add(i32.add(get(c), get(n)), i32.mul(get(m), get(rowBytes)))),
            when(get(adds), [
              each((sum, r, v) => set(sum, f32x4.add(get(sum), v128.load(rowOf(atC, rowBytes, r), 16 * v)))),
            ]),
            each((sum, r, v) => v128.store(rowOf(atC, rowBytes, r), 16 * v, get(sum))),
            set(n, i32.add(get(n), i32.const(16 * vectors))),
          ],
          i32.lessThan(get(n), get(rowBytes)),
        ),
        set(m, i32.add(get(m), i32.const(ROWS))),
      ],
      i32.lessThan(get(m), get(M)),
    ),
  ].flat();
};

/** e^x of four lanes in `x`, which is overwritten along with `n`: bytes that leave the result on the stack. */
function exp(x, n, power) {
  const LN2_HIGH = 0.693359375; // 10 bits, so that n LN2_HIGH is exact
  const LN2_LOW = Math.LN2 - LN2_HIGH;
  const bounded = f32x4.max(f32x4.min(get(x), f32x4.const(88)), f32x4.const(-87)); // within float32's range
  // x = n ln 2 + r with |r| <= ln(2) / 2, where eight terms of the series are exact to 1e-8.
  const remainder = (part) => f32x4.sub(get(x), f32x4.mul(get(n), f32x4.const(part)));
  let series = f32x4.const(1);
  for (let term = 7; term >= 1; term--) {
    series = f32x4.add(f32x4.const(1), f32x4.mul(f32x4.mul(series, get(x)), f32x4.const(1 / term)));
  }
  return [
    set(x, bounded),
    set(n, f32x4.nearest(f32x4.mul(get(x), f32x4.const(Math.LOG2E)))),
    set(x, remainder(LN2_HIGH)),
    set(x, remainder(LN2_LOW)),
    // 2^n has no mantissa: n + 127 in the exponent's bits.
    set(power, i32x4.shiftLeft(i32x4.add(i32x4.fromFloat(get(n)), i32x4.const(127)), i32.const(23))),
    f32x4.mul(series, get(power)),
  ].flat();
}

/** Replace p by the slope of silu at p, and write silu(p), plus `skip` if it is an address, to h. */
function silu(parameter, integer, lanes) {
  const [p, h, skip, count] = Array.from({ length: 4 }, parameter);
  const left = integer();
  const [x, n, power, s, value, pre] = Array.from({ length: 6 }, lanes);
  const ahead = (address) => set(address, i32.add(get(address), i32.const(16)));
  return [
    set(left, get(count)),
    repeat(
      [
        set(pre, v128.load(get(p), 0)),
        set(x, f32x4.neg(get(pre))),
        set(s, f32x4.div(f32x4.const(1), f32x4.add(f32x4.const(1), exp(x, n, power)))),
        set(value, f32x4.mul(get(pre), get(s))),
        // d/dp p s(p) = s + p s (1 - s)
        v128.store(get(p), 0, f32x4.add(get(s), f32x4.mul(get(value), f32x4.sub(f32x4.const(1), get(s))))),
        when(get(skip), [set(value, f32x4.add(get(value), v128.load(get(skip), 0))), ahead(skip)]),
        v128.store(get(h), 0, get(value)),
        ahead(p),
        ahead(h),
        set(left, i32.sub(get(left), i32.const(4))),
      ],
      get(left),
    ),
  ].flat();
}

/** out = a * b, element by element. */
function times(parameter, integer) {
  const [a, b, out, count] = Array.from({ length: 4 }, parameter);
  const left = integer();
  return [
    set(left, get(count)),
    repeat(
      [
        v128.store(get(out), 0, f32x4.mul(v128.load(get(a), 0), v128.load(get(b), 0))),
        ...[a, b, out].map((address) => set(address, i32.add(get(address), i32.const(16)))),
        set(left, i32.sub(get(left), i32.const(4))),
      ],
      get(left),
    ),
  ].flat();
}

function kernelBytes() {
  return assemble(PAGES, { product4: product(1), product8: product(2), silu, times });
}

/**
 * The kernel for this browser. Both kinds take arrays from `floats(n)`, whose lengths are multiples of 4:
 *
 *     product(A, B, C, M, N, K, {transposed, adds})    C (+)= A B, A (M, K) or, transposed, stored as (K, M)
 *     silu(p, h, skip)                                 h = silu(p) (+ skip); p becomes the slope
 *     times(a, b, out)                                 out = a * b
 *
 * @param {boolean} simd whether to try: the page and its worker must train and evaluate the same network
 */
export function makeKernel(simd = true) {
  try {
    if (simd) return new SimdKernel(new WebAssembly.Instance(new WebAssembly.Module(kernelBytes())).exports);
  } catch {
    // no WebAssembly, no SIMD, or a policy that forbids it
  }
  return new PlainKernel();
}

class SimdKernel {
  simd = true;

  constructor(exports) {
    this.exports = exports;
    this.top = 16; // address 0 means "no skip"
  }

  floats(count) {
    const array = new Float32Array(this.exports.memory.buffer, this.top, count);
    this.top += (4 * count + 15) & ~15;
    return array;
  }

  product(A, B, C, M, N, K, { transposed = false, adds = false } = {}) {
    const run = N % 8 ? this.exports.product4 : this.exports.product8;
    const [rowStride, innerStride] = transposed ? [4, 4 * M] : [4 * K, 4];
    run(A.byteOffset, B.byteOffset, C.byteOffset, M, N, K, rowStride, innerStride, adds ? 1 : 0);
  }

  silu(p, h, skip) {
    this.exports.silu(p.byteOffset, h.byteOffset, skip ? skip.byteOffset : 0, p.length);
  }

  times(a, b, out) {
    this.exports.times(a.byteOffset, b.byteOffset, out.byteOffset, a.length);
  }
}

class PlainKernel {
  simd = false;

  floats(count) {
    return new Float32Array(count);
  }

  product(A, B, C, M, N, K, { transposed = false, adds = false } = {}) {
    const [rowStride, innerStride] = transposed ? [1, M] : [K, 1];
    for (let m = 0; m < M; m++) {
      for (let n = 0; n < N; n += 4) {
        const at = m * N + n;
        let [s0, s1, s2, s3] = adds ? [C[at], C[at + 1], C[at + 2], C[at + 3]] : [0, 0, 0, 0];
        for (let k = 0, a = m * rowStride, b = n; k < K; k++, a += innerStride, b += N) {
          const x = A[a];
          s0 += x * B[b];
          s1 += x * B[b + 1];
          s2 += x * B[b + 2];
          s3 += x * B[b + 3];
        }
        C[at] = s0;
        C[at + 1] = s1;
        C[at + 2] = s2;
        C[at + 3] = s3;
      }
    }
  }

  silu(p, h, skip) {
    for (let i = 0; i < p.length; i++) {
      const s = 1 / (1 + Math.exp(-p[i]));
      const value = p[i] * s;
      p[i] = s + value * (1 - s);
      h[i] = skip ? value + skip[i] : value;
    }
  }

  times(a, b, out) {
    for (let i = 0; i < out.length; i++) out[i] = a[i] * b[i];
  }
}
