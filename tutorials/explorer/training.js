// A student in training: draws batches, takes steps, and measures its error.

import { pidLoss, TimeSampler } from "./loss.js";
import { Muon, schedule } from "./muon.js";
import { noise, Random } from "./random.js";
import { Student } from "./student.js";
import { euler, karrasGrid, relativeError, T, T_MIN } from "./teacher.js";

const BATCH = { simd: 256, plain: 128 };
const REFERENCE = 1024; // noises that the error is measured on
const REFERENCE_SEED = 2 ** 31; // none of the page's

/** Peak learning rate of pidlearn's recipe: fewer steps have to be larger. */
export function peakRate(steps) {
  return 3e-3 * Math.min(Math.max(Math.sqrt(5500 / steps), 0.5), 4);
}

/** The teacher's samples with N - 1 calls from fixed noises, and its errors with fewer calls. */
export class Reference {
  /**
   * @param {Mixture} mixture
   * @param {number} n grid points
   */
  constructor(mixture, n) {
    this.mixture = mixture;
    this.n = n;
    this.z = noise(REFERENCE, T, REFERENCE_SEED);
    this.end = this.#endOf(n);
  }

  #endOf(n) {
    return euler(this.mixture, this.z, karrasGrid(n)).slice(-this.z.length);
  }

  /** Error of Euler's method with this many calls, over the samples' spread. */
  errorOf(calls) {
    return relativeError(this.#endOf(calls + 1), this.end);
  }
}

export class Training {
  /**
   * @param kernel from makeKernel
   * @param {Reference} reference of the teacher
   * @param {{steps: number, seed: number}} settings
   */
  constructor(kernel, reference, { steps, seed }) {
    const batch = kernel.simd ? BATCH.simd : BATCH.plain;
    const { mixture, n } = reference;
    Object.assign(this, { mixture, reference, steps, done: 0 });
    this.random = new Random(seed);
    this.student = new Student(kernel, mixture.std, 2 * batch, this.random); // each noise at two times
    this.optimizer = new Muon(kernel, this.student.network);
    this.grid = karrasGrid(n);
    this.sampler = new TimeSampler(this.grid, mixture.std);
    this.z = new Float64Array(2 * batch);
    this.index = new Int32Array(batch);
  }

  /** Take one step; returns the loss of its batch. */
  step() {
    const { random, z, index } = this;
    const { network } = this.student;
    for (let j = 0; j < z.length; j++) z[j] = T * random.normal();
    this.sampler.draw(index, random);
    const loss = pidLoss(network, this.mixture, this.grid, z, index);
    network.backward(index.length, 2 * index.length);
    this.optimizer.step(peakRate(this.steps) * schedule(this.done, this.steps));
    this.done++;
    return loss;
  }

  /** RMSE of one call of the student to the teacher with all calls, over the samples' spread. */
  error() {
    return relativeError(this.student.at(this.reference.z, T_MIN), this.reference.end);
  }
}
