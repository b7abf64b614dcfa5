// The student: the whole solution x(z, t) as one network. x(z, T) = z exactly.

import { Network } from "./network.js";
import { Random } from "./random.js";
import { T } from "./teacher.js";

/** pidlearn's network, and a smaller one for browsers without SIMD. */
const SIZES = {
  simd: { width: 64, depth: 5, fourier: 64, harmonics: 6 },
  plain: { width: 32, depth: 4, fourier: 32, harmonics: 6 },
};

export class Student {
  /**
   * @param kernel from makeKernel
   * @param {number} sigmaData standard deviation of the data
   * @param {number} rows most rows of a batch, a multiple of 4
   * @param {Random} random draws its frequencies and initial weights
   */
  constructor(kernel, sigmaData, rows, random) {
    this.network = new Network(kernel, kernel.simd ? SIZES.simd : SIZES.plain, sigmaData, T, rows, random);
    this.rows = rows;
  }

  /** Take noises z (2 B), of which there are at most `rows`, for `evaluate`. */
  encode(z) {
    this.z = z;
    for (let b = 0; b < z.length / 2; b++) this.network.setNoise(b, z[2 * b], z[2 * b + 1]);
  }

  /** x(z, t) of the noises that were encoded last, at one time, (2 B). */
  evaluate(t) {
    const { network, z } = this;
    const count = z.length / 2;
    const padded = (count + 3) & ~3; // the kernel takes rows by fours
    for (let b = 0; b < padded; b++) network.setTime(b, t);
    network.forward(padded, padded);
    const out = new Float64Array(z.length);
    for (let b = 0; b < count; b++) this.#read(b, z[2 * b], z[2 * b + 1], t, out, 2 * b);
    return out;
  }

  /** x(z, t) of any number of noises z (2 B) at one time, (2 B). */
  at(z, t) {
    const out = new Float64Array(z.length);
    for (let start = 0; start < z.length; start += 2 * this.rows) {
      this.encode(z.subarray(start, start + 2 * this.rows));
      out.set(this.evaluate(t), start);
    }
    return out;
  }

  /** x(z, t) of one noise at many times (M), (2 M); 4 M is at most `rows`. */
  path(z0, z1, times) {
    const { network } = this;
    for (let b = 0; b < 4; b++) network.setNoise(b, z0, z1);
    times.forEach((t, i) => {
      for (let b = 0; b < 4; b++) network.setTime(4 * i + b, t);
    });
    network.forward(4, 4 * times.length);
    const out = new Float64Array(2 * times.length);
    times.forEach((t, i) => this.#read(4 * i, z0, z1, t, out, 2 * i));
    return out;
  }

  /** Write x = (t / T) z + (1 - t / T) F of a row to out. */
  #read(row, z0, z1, t, out, at) {
    const { output } = this.network;
    const skip = t / T;
    out[at] = skip * z0 + (1 - skip) * output[4 * row];
    out[at + 1] = skip * z1 + (1 - skip) * output[4 * row + 1];
  }
}
