// The teacher: a Gaussian mixture, whose denoiser is evaluated in closed form, and the solvers of its probability-flow
// ODE.

import { Path } from "./numerics.js";

/** A 2-D Gaussian mixture: the denoiser E[x0 | x] at any noise level, computed in each component's eigenbasis. */
export class Mixture {
  constructor({ means, weights, eigenvalues, basis }) {
    this.k = weights.length;
    this.means = Float64Array.from(means.flat());
    this.eigenvalues = Float64Array.from(eigenvalues.flat());
    this.basis = Float64Array.from(basis.flat(2));
    this.logWeights = weights.map(Math.log);
    this.c = new Float64Array(2 * this.k);
    this.joint = new Float64Array(this.k);
  }

  /** Write log w_k N(x; mean_k, cov_k + sigma^2), up to a constant, to this.joint; return the largest. */
  logJoint(x, y, sigma) {
    const { means, eigenvalues: l, basis: u, c, joint } = this;
    const s2 = sigma * sigma;
    let top = -Infinity;
    for (let k = 0; k < this.k; k++) {
      const dx = x - means[2 * k];
      const dy = y - means[2 * k + 1];
      const v0 = l[2 * k] + s2;
      const v1 = l[2 * k + 1] + s2;
      const c0 = (c[2 * k] = u[4 * k] * dx + u[4 * k + 2] * dy);
      const c1 = (c[2 * k + 1] = u[4 * k + 1] * dx + u[4 * k + 3] * dy);
      joint[k] = this.logWeights[k] - 0.5 * ((c0 * c0) / v0 + (c1 * c1) / v1 + Math.log(v0 * v1));
      if (joint[k] > top) top = joint[k];
    }
    return top;
  }

  denoise(x, y, sigma, out) {
    const { means, eigenvalues: l, basis: u, c, joint } = this;
    const top = this.logJoint(x, y, sigma);
    const s2 = sigma * sigma;
    let total = 0;
    let dx = 0;
    let dy = 0;
    for (let k = 0; k < this.k; k++) {
      const r = Math.exp(joint[k] - top);
      const a = (c[2 * k] * l[2 * k]) / (l[2 * k] + s2);
      const b = (c[2 * k + 1] * l[2 * k + 1]) / (l[2 * k + 1] + s2);
      total += r;
      dx += r * (means[2 * k] + u[4 * k] * a + u[4 * k + 1] * b);
      dy += r * (means[2 * k + 1] + u[4 * k + 2] * a + u[4 * k + 3] * b);
    }
    out[0] = dx / total;
    out[1] = dy / total;
  }

  density(x, y, sigma) {
    const top = this.logJoint(x, y, sigma);
    let sum = 0;
    for (let k = 0; k < this.k; k++) sum += Math.exp(this.joint[k] - top);
    return Math.exp(top) * sum;
  }

  component(x, y) {
    const top = this.logJoint(x, y, 0);
    return this.joint.indexOf(top);
  }
}

/** Solve the probability-flow ODE from starts (B x 2) by Euler or Heun; linear in t between grid points. */
export function solve(mixture, starts, grid, method) {
  const size = starts.length;
  const x = new Float64Array(grid.length * size);
  x.set(starts);
  const d = [0, 0];
  for (let i = 0; i + 1 < grid.length; i++) {
    const t = grid[i];
    const h = grid[i + 1] - t;
    for (let j = 0; j < size; j += 2) {
      const p = i * size + j;
      mixture.denoise(x[p], x[p + 1], t, d);
      const v0 = (x[p] - d[0]) / t;
      const v1 = (x[p + 1] - d[1]) / t;
      let x0 = x[p] + h * v0;
      let x1 = x[p + 1] + h * v1;
      if (method === "heun") {
        mixture.denoise(x0, x1, grid[i + 1], d);
        x0 = x[p] + (h / 2) * (v0 + (x0 - d[0]) / grid[i + 1]);
        x1 = x[p + 1] + (h / 2) * (v1 + (x1 - d[1]) / grid[i + 1]);
      }
      x[p + size] = x0;
      x[p + size + 1] = x1;
    }
  }
  return new Path(grid, x, size);
}
