// The student's network F(c_in z, ln(t) / 4): pidlearn's residual MLP, with its gradient. A batch is a set of noises at
// one or more times each; the part of the first layer that depends on the noise is computed once for all its times.

const BLOCK = 64; // rows whose gradients are summed at once
const roundUp = (n) => (n + 3) & ~3; // the kernel works on blocks of 4

/** Weights by name: where each lies in one array, with matrices stored as (inputs, outputs), torch's transposed. */
function layout({ width, depth, fourier, harmonics }) {
  const noise = roundUp(2 + 2 * fourier);
  const time = roundUp(1 + 2 * harmonics);
  const shapes = [
    // The true number of inputs, without padding, is what initialisation and optimiser go by.
    { name: "first", inputs: noise + time, outputs: width, fanIn: 3 + 2 * fourier + 2 * harmonics },
    ...Array.from({ length: depth - 1 }, (_, l) => ({
      name: `hidden.${l}`, inputs: width, outputs: width, fanIn: width,
    })),
    { name: "out", inputs: width, outputs: 4, fanIn: width }, // two are used
  ]; // prettier-ignore
  let at = 0;
  for (const shape of shapes) {
    shape.weight = [at, (at += shape.inputs * shape.outputs)];
    shape.bias = [at, (at += shape.outputs)];
  }
  return { noise, time, shapes, total: at };
}

export class Network {
  /**
   * @param kernel from makeKernel
   * @param {{width: number, depth: number, fourier: number, harmonics: number}} size
   * @param {number} sigmaData standard deviation of the data
   * @param {number} T prior end, where z has this standard deviation
   * @param {number} rows most rows of a batch: noises times the times of each
   * @param {Random} random draws frequencies and initial weights
   */
  constructor(kernel, size, sigmaData, T, rows, random) {
    Object.assign(this, size, layout(size), { kernel, rows, cIn: 1 / Math.hypot(sigmaData, T) });
    const { width, depth, total } = this;
    this.weights = kernel.floats(total);
    this.gradients = kernel.floats(total);
    // For x ~ N(0, 1) in the plane, the phases W x have variance 2 W^2 = 2.
    this.frequencies = Float64Array.from({ length: 2 * size.fourier }, () => random.normal());
    for (const { name, weight, bias, inputs, outputs, fanIn } of this.shapes) {
      if (name === "out") continue; // zero: the student starts as the straight line from z to the origin
      const bound = 1 / Math.sqrt(fanIn);
      for (let i = 0; i < inputs; i++) {
        if (name === "first" && this.#isPadding(i)) continue;
        for (let o = 0; o < outputs; o++) this.weights[weight[0] + i * outputs + o] = bound * (2 * random.uniform() - 1);
      }
      for (let o = bias[0]; o < bias[1]; o++) this.weights[o] = bound * (2 * random.uniform() - 1);
    }
    const batch = (columns) => kernel.floats(rows * columns);
    this.noiseFeatures = batch(this.noise); // (B, noise)
    this.timeFeatures = batch(this.time); // (R, time)
    this.encoded = batch(width); // (B, width), the first layer of the noise
    this.slopes = Array.from({ length: depth }, () => batch(width)); // (R, width): pre-activations, then slopes
    this.hidden = Array.from({ length: depth }, () => batch(width)); // (R, width)
    this.output = batch(4); // (R, 4)
    this.outputGradient = batch(4);
    this.hiddenGradient = batch(width);
    this.slopeGradient = batch(width);
    this.turned = kernel.floats(width * width);
  }

  #isPadding(input) {
    const used = input < this.noise ? 2 + 2 * this.fourier : this.noise + 1 + 2 * this.harmonics;
    return input >= used;
  }

  /** The part of an array that belongs to a layer's weight or bias. */
  part(array, range) {
    return array.subarray(...range);
  }

  /** Set noise `row` of the batch. */
  setNoise(row, z0, z1) {
    const { fourier, frequencies, noiseFeatures, cIn } = this;
    const at = row * this.noise;
    const [x, y] = [cIn * z0, cIn * z1];
    noiseFeatures[at] = x;
    noiseFeatures[at + 1] = y;
    for (let k = 0; k < fourier; k++) {
      const phase = x * frequencies[k] + y * frequencies[fourier + k];
      noiseFeatures[at + 2 + k] = Math.cos(phase);
      noiseFeatures[at + 2 + fourier + k] = Math.sin(phase);
    }
  }

  /** Set the time of `row` of the batch. */
  setTime(row, t) {
    const { harmonics, timeFeatures } = this;
    const at = row * this.time;
    const time = Math.log(t) / 4;
    timeFeatures[at] = time;
    for (let k = 1; k <= harmonics; k++) {
      timeFeatures[at + k] = Math.cos(k * time);
      timeFeatures[at + harmonics + k] = Math.sin(k * time);
    }
  }

  /** Evaluate F at R rows, of which row r has noise r modulo B, into `output` (R, 4). Both are multiples of 4. */
  forward(B, R) {
    const { kernel, width, depth, weights, shapes, encoded, slopes, hidden } = this;
    const first = this.part(weights, shapes[0].weight);
    fillRows(encoded, this.part(weights, shapes[0].bias), B);
    kernel.product(this.noiseFeatures, first, encoded, B, width, this.noise, { adds: true });
    const ofTime = first.subarray(this.noise * width);
    const size = R * width;
    for (let l = 0; l < depth; l++) {
      const p = slopes[l].subarray(0, size);
      if (l === 0) {
        for (let row = 0; row < R; row += B) p.set(encoded.subarray(0, B * width), row * width);
        kernel.product(this.timeFeatures, ofTime, p, R, width, this.time, { adds: true });
      } else {
        fillRows(p, this.part(weights, shapes[l].bias), R);
        kernel.product(hidden[l - 1], this.part(weights, shapes[l].weight), p, R, width, width, { adds: true });
      }
      kernel.silu(p, hidden[l], l ? hidden[l - 1] : null); // h + silu(W h + b)
    }
    const out = shapes[depth];
    fillRows(this.output, this.part(weights, out.bias), R);
    kernel.product(hidden[depth - 1], this.part(weights, out.weight), this.output, R, 4, width, { adds: true });
  }

  /** From `outputGradient` (R, 4), after a forward pass of the same rows, the gradients of all weights. */
  backward(B, R) {
    const { kernel, width, depth, weights, gradients, shapes, slopes, hidden } = this;
    const { outputGradient, hiddenGradient, slopeGradient, turned } = this;
    const out = shapes[depth];
    this.#weightGradient(hidden[depth - 1], outputGradient, this.part(gradients, out.weight), R);
    sumRows(outputGradient, this.part(gradients, out.bias), R);
    transpose(this.part(weights, out.weight), turned, width, 4);
    kernel.product(outputGradient, turned, hiddenGradient, R, width, 4);
    const size = R * width;
    for (let l = depth - 1; l >= 0; l--) {
      kernel.times(hiddenGradient.subarray(0, size), slopes[l].subarray(0, size), slopeGradient.subarray(0, size));
      const gradient = this.part(gradients, shapes[l].weight);
      sumRows(slopeGradient, this.part(gradients, shapes[l].bias), R);
      if (l) {
        this.#weightGradient(hidden[l - 1], slopeGradient, gradient, R);
        transpose(this.part(weights, shapes[l].weight), turned, width, width);
        // The skip connection leaves hiddenGradient in place; this adds what comes through the layer.
        kernel.product(slopeGradient, turned, hiddenGradient, R, width, width, { adds: true });
        continue;
      }
      this.#weightGradient(this.timeFeatures, slopeGradient, gradient.subarray(this.noise * width), R);
      // All times of a noise share its features: sum over them before the product.
      for (let row = B * width; row < size; row += B * width) {
        for (let i = 0; i < B * width; i++) slopeGradient[i] += slopeGradient[row + i];
      }
      this.#weightGradient(this.noiseFeatures, slopeGradient, gradient.subarray(0, this.noise * width), B);
    }
  }

  /** out = inputs^T gradient, summed over the rows in blocks: one long sum in float32 would lose a digit. */
  #weightGradient(inputs, gradient, out, rows) {
    const [M, N] = [inputs.length / this.rows, gradient.length / this.rows];
    for (let row = 0; row < rows; row += BLOCK) {
      const [A, B] = [inputs.subarray(row * M), gradient.subarray(row * N)];
      this.kernel.product(A, B, out, M, N, Math.min(BLOCK, rows - row), { transposed: true, adds: row > 0 });
    }
  }
}

function fillRows(out, row, count) {
  for (let r = 0; r < count; r++) out.set(row, r * row.length);
}

function sumRows(array, out, rows) {
  const columns = out.length;
  const sums = new Float64Array(columns);
  for (let r = 0, at = 0; r < rows; r++) for (let c = 0; c < columns; c++, at++) sums[c] += array[at];
  out.set(sums);
}

/** The transpose of a matrix (rows, columns). */
function transpose(matrix, out, rows, columns) {
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[c * rows + r] = matrix[r * columns + c];
}
