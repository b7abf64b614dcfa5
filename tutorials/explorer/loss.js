// The PID loss of a batch, and the gradient with respect to the network's output.
//
//     x(z, t) = (t / T) z + (1 - t / T) F(c_in z, ln(t) / 4)
//     residual = x - t dx/dt - D(x, t)
//
// With the forward difference from t to the grid's next time t', z cancels: x - t dx/dt = F' + beta (F' - F), where
// beta = t' (1 - t / T) / (t - t'). D is held constant (stop-gradient), and the distance is pidlearn's pseudo-Huber.

import { T } from "./teacher.js";

const HUBER = 0.03;

/**
 * @param {Network} network
 * @param {Mixture} mixture
 * @param {Float64Array} grid (N)
 * @param {Float64Array} z (2 B) noise
 * @param {Int32Array} index (B) grid points, from 0 to N - 2
 * @returns {number} the mean loss; network.outputGradient is ready for network.backward(B, 2 B)
 */
export function pidLoss(network, mixture, grid, z, index) {
  const B = index.length;
  for (let b = 0; b < B; b++) {
    network.setNoise(b, z[2 * b], z[2 * b + 1]);
    network.setTime(b, grid[index[b]]);
    network.setTime(B + b, grid[index[b] + 1]);
  }
  network.forward(B, 2 * B);
  const { output: F, outputGradient: gradient } = network;
  const d = [0, 0];
  let loss = 0;
  for (let b = 0; b < B; b++) {
    const [t, next] = [grid[index[b]], grid[index[b] + 1]];
    const [now, then] = [4 * b, 4 * (B + b)]; // this sample's rows of F
    const skip = t / T;
    mixture.denoise(skip * z[2 * b] + (1 - skip) * F[now], skip * z[2 * b + 1] + (1 - skip) * F[now + 1], t, d);
    const beta = (next * (1 - skip)) / (t - next);
    const r0 = F[then] + beta * (F[then] - F[now]) - d[0];
    const r1 = F[then + 1] + beta * (F[then + 1] - F[now + 1]) - d[1];
    const square = (r0 * r0 + r1 * r1) / 2;
    const root = Math.sqrt(square + HUBER * HUBER);
    loss += square / (root + HUBER); // root - HUBER, without the cancellation
    const scale = 1 / (2 * root * B); // d loss / d r = scale r
    gradient[now] = -beta * scale * r0;
    gradient[now + 1] = -beta * scale * r1;
    gradient[then] = (1 + beta) * scale * r0;
    gradient[then + 1] = (1 + beta) * scale * r1;
  }
  return loss / B;
}

/** Draws grid points: log-normal in t around the data's standard deviation, over a floor that leaves none out. */
export class TimeSampler {
  constructor(grid, sigmaData) {
    let sum = 0;
    this.cumulative = Float64Array.from({ length: grid.length - 1 }, (_, i) => {
      sum += 0.1 + Math.exp(-0.5 * (Math.log(grid[i] / sigmaData) / 1.2) ** 2);
      return sum;
    });
  }

  /** Fill index (B), stratified: one draw from each B-th of the distribution. */
  draw(index, random) {
    const { cumulative } = this;
    const last = cumulative.length - 1;
    let i = 0;
    for (let b = 0; b < index.length; b++) {
      const u = ((b + random.uniform()) / index.length) * cumulative[last];
      while (i < last && cumulative[i] < u) i++;
      index[b] = i;
    }
  }
}
