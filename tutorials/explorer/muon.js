// pidlearn's default optimiser: Muon for matrices, Adam for all other weights.
//
//     M <- m M + (1 - m) g,    W <- W - r O(m M + (1 - m) g)
//
// O brings the singular values near 1 by Newton and Schulz's iteration, so that rare directions are learned, too.

const MOMENTUM = 0.95;
const [BETA1, BETA2] = [0.9, 0.99];
const MATRIX_RATE = 5; // over Adam's
const ITERATIONS = 5;
const [A, B, C] = [3.4445, -4.775, 2.0315]; // X <- X (a + b X^T X + c (X^T X)^2)
const WARMUP = 0.02;

/** Rate of step `step` (from 0), relative to the peak: a linear warm-up, then half a cosine. */
export function schedule(step, steps) {
  const share = (step + 1) / (steps + 1);
  return share < WARMUP ? share / WARMUP : 0.5 * (1 + Math.cos((Math.PI * (share - WARMUP)) / (1 - WARMUP)));
}

export class Muon {
  constructor(kernel, network) {
    this.kernel = kernel;
    this.network = network;
    this.steps = 0;
    const { weights, gradients, shapes } = network;
    const pair = (range) => ({ weight: network.part(weights, range), gradient: network.part(gradients, range) });
    const matrices = shapes.filter(({ name }) => name !== "out");
    this.matrices = matrices.map(({ weight, inputs, outputs, fanIn }) => ({
      ...pair(weight),
      momentum: new Float32Array(inputs * outputs),
      inputs,
      outputs,
      factor: Math.sqrt(Math.max(1, outputs / fanIn)),
    }));
    this.others = [...shapes.map(({ bias }) => bias), shapes.at(-1).weight].map((range) => ({
      ...pair(range),
      mean: new Float32Array(range[1] - range[0]),
      square: new Float32Array(range[1] - range[0]),
    }));
    const largest = Math.max(...this.matrices.map(({ momentum }) => momentum.length));
    const side = Math.max(...this.matrices.map(({ outputs }) => outputs)) ** 2;
    this.x = [kernel.floats(largest), kernel.floats(largest)];
    this.gram = [kernel.floats(side), kernel.floats(side)];
  }

  /** Move all weights along their gradients, at Adam's rate `rate`. */
  step(rate) {
    this.steps++;
    for (const matrix of this.matrices) this.#moveMatrix(matrix, MATRIX_RATE * rate);
    const [c1, c2] = [1 - BETA1 ** this.steps, 1 - BETA2 ** this.steps];
    for (const { weight, gradient, mean, square } of this.others) {
      for (let i = 0; i < weight.length; i++) {
        const g = gradient[i];
        mean[i] += (1 - BETA1) * (g - mean[i]);
        square[i] += (1 - BETA2) * (g * g - square[i]);
        weight[i] -= (rate * (mean[i] / c1)) / (Math.sqrt(square[i] / c2) + 1e-8);
      }
    }
  }

  #moveMatrix({ weight, gradient, momentum, inputs, outputs, factor }, rate) {
    const size = weight.length;
    let [x, next] = this.x.map((array) => array.subarray(0, size));
    let squares = 0;
    for (let i = 0; i < size; i++) {
      momentum[i] += (1 - MOMENTUM) * (gradient[i] - momentum[i]);
      x[i] = gradient[i] + MOMENTUM * (momentum[i] - gradient[i]); // Nesterov's look-ahead
      squares += x[i] * x[i];
    }
    const scale = 1 / (Math.sqrt(squares) + 1e-7); // no singular value is then above 1
    for (let i = 0; i < size; i++) x[i] *= scale;
    const [gram, polynomial] = this.gram.map((array) => array.subarray(0, outputs * outputs));
    const { kernel } = this;
    for (let k = 0; k < ITERATIONS; k++) {
      kernel.product(x, x, gram, outputs, outputs, inputs, { transposed: true }); // X^T X
      kernel.product(gram, gram, polynomial, outputs, outputs, outputs);
      for (let i = 0; i < gram.length; i++) polynomial[i] = B * gram[i] + C * polynomial[i];
      for (let i = 0; i < outputs; i++) polynomial[i * outputs + i] += A;
      kernel.product(x, polynomial, next, inputs, outputs, outputs);
      [x, next] = [next, x];
    }
    for (let i = 0; i < size; i++) weight[i] -= rate * factor * x[i];
  }
}
