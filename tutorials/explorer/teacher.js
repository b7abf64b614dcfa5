// The teacher: an isotropic Gaussian mixture. Its diffusion is known in closed form, so its denoiser is exact at every
// noise level; Euler's method follows its ODE.

export const T = 80;
export const T_MIN = 0.002;
const RHO = 7;
const NEGLIGIBLE = -37; // exp(-37) < 1e-16: such a component changes no digit of the mean

/** EDM's time grid: n times from T to T_MIN, equal steps in t^(1/7). */
export function karrasGrid(n) {
  const [top, bottom] = [T ** (1 / RHO), T_MIN ** (1 / RHO)];
  const grid = Float64Array.from({ length: n }, (_, i) => (top + (i / (n - 1)) * (bottom - top)) ** RHO);
  grid[0] = T; // exactly: the boundary condition x(z, T) = z holds only there
  grid[n - 1] = T_MIN;
  return grid;
}

/** K equal Gaussians of one standard deviation in the plane. */
export class Mixture {
  /**
   * @param {number[][]} means (K, 2)
   * @param {number} std of each component
   */
  constructor(means, std) {
    this.means = Float64Array.from(means.flat());
    this.count = means.length;
    this.variance = std * std;
    this.std = spread(this.means, this.variance);
    this.logits = new Float64Array(this.count);
  }

  /**
   * Write the denoiser E[x0 | x0 + sigma n = (x, y)] to out (2).
   *
   * Noise turns each N(mu, s^2) into N(mu, s^2 + sigma^2). With the responsibilities r of the components, E[x0 | x] is
   * the mean of mu + s^2 / (s^2 + sigma^2) (x - mu) under r, which is linear in mu.
   */
  denoise(x, y, sigma, out) {
    const { means, count, variance, logits } = this;
    const total = variance + sigma * sigma;
    let top = -Infinity;
    for (let k = 0; k < count; k++) {
      const dx = x - means[2 * k];
      const dy = y - means[2 * k + 1];
      const logit = (-0.5 * (dx * dx + dy * dy)) / total;
      logits[k] = logit;
      if (logit > top) top = logit;
    }
    let sum = 0;
    let mx = 0;
    let my = 0;
    for (let k = 0; k < count; k++) {
      if (logits[k] - top < NEGLIGIBLE) continue;
      const r = Math.exp(logits[k] - top);
      sum += r;
      mx += r * means[2 * k];
      my += r * means[2 * k + 1];
    }
    const signal = variance / total;
    out[0] = signal * x + (1 - signal) * (mx / sum);
    out[1] = signal * y + (1 - signal) * (my / sum);
  }
}

/** Standard deviation of one coordinate: between the means, plus within each component. */
function spread(means, variance) {
  const count = means.length / 2;
  let [sx, sy, squares] = [0, 0, 0];
  for (let k = 0; k < count; k++) {
    sx += means[2 * k];
    sy += means[2 * k + 1];
    squares += means[2 * k] ** 2 + means[2 * k + 1] ** 2;
  }
  return Math.sqrt((squares - (sx * sx + sy * sy) / count) / (2 * count) + variance);
}

/**
 * Euler's path of the ODE dx/dt = (x - D(x, t)) / t.
 *
 * @param {Mixture} mixture
 * @param {Float64Array} z starts, (2 B)
 * @param {Float64Array} grid decreasing times, (N)
 * @returns {Float64Array} (N, 2 B), whose first row is z: N - 1 calls of the denoiser for each point
 */
export function euler(mixture, z, grid) {
  const size = z.length;
  const path = new Float64Array(grid.length * size);
  path.set(z);
  const d = [0, 0];
  for (let i = 0; i + 1 < grid.length; i++) {
    // x + (t' - t) (x - D) / t = share x + (1 - share) D
    const share = grid[i + 1] / grid[i];
    for (let j = i * size; j < (i + 1) * size; j += 2) {
      mixture.denoise(path[j], path[j + 1], grid[i], d);
      path[j + size] = share * path[j] + (1 - share) * d[0];
      path[j + size + 1] = share * path[j + 1] + (1 - share) * d[1];
    }
  }
  return path;
}

/** Euler's path at any time, (2 B): straight lines between the grid's times. */
export function pathAt(path, grid, t) {
  const size = path.length / grid.length;
  let i = 0;
  while (i + 2 < grid.length && grid[i + 1] > t) i++;
  const share = Math.min(1, Math.max(0, (grid[i] - t) / (grid[i] - grid[i + 1])));
  const out = new Float64Array(size);
  for (let j = 0; j < size; j++) out[j] = (1 - share) * path[i * size + j] + share * path[(i + 1) * size + j];
  return out;
}

/** RMSE of x to the reference, over the reference's own standard deviation: 0 is perfect, 1 predicts its mean. */
export function relativeError(x, reference) {
  const count = x.length / 2;
  let [sx, sy, squares, error] = [0, 0, 0, 0];
  for (let j = 0; j < x.length; j += 2) {
    sx += reference[j];
    sy += reference[j + 1];
    squares += reference[j] ** 2 + reference[j + 1] ** 2;
    error += (x[j] - reference[j]) ** 2 + (x[j + 1] - reference[j + 1]) ** 2;
  }
  return Math.sqrt(error / (squares - (sx * sx + sy * sy) / count));
}
