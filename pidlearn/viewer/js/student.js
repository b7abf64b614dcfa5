// The student: pidlearn's residual MLP and the boundary condition around it, evaluated in plain loops.

import { decode } from "./numerics.js";

const BOUNDARIES = {
  hard: (t, T) => [t / T, 1 - t / T],
  increment: (t, T) => [1, t - T],
  soft: (t, T, sigmaData) => [0, Math.hypot(t, sigmaData)],
  signal: (t, T) => [t / T, 1],
};

const silu = (v) => v / (1 + Math.exp(-v));

/** x(z, t) = a(t) z + b(t) F(c_in z, ln(t) / 4) with pidlearn's residual MLP as F. */
export class Student {
  constructor(spec) {
    Object.assign(this, spec);
    const layer = ({ weight, bias }) => ({ weight: decode(weight).values, bias: decode(bias).values });
    this.W = decode(spec.frequencies).values;
    this.first = layer(spec.first);
    this.hidden = spec.hidden.map(layer);
    this.out = layer(spec.out);
    this.width = this.first.bias.length;
    this.fourier = this.W.length / 2;
    this.h = spec.harmonics.length;
  }

  /** The part of the first layer that depends on z (B x 2) and not on t: (B x width). */
  encode(z) {
    const { W, fourier, h, width, first, c_in } = this;
    const columns = first.weight.length / width;
    const n = z.length / 2;
    const base = new Float64Array(n * width);
    const features = new Float64Array(2 + 2 * fourier);
    for (let b = 0; b < n; b++) {
      const x = c_in * z[2 * b];
      const y = c_in * z[2 * b + 1];
      features[0] = x;
      features[1] = y;
      for (let f = 0; f < fourier; f++) {
        const phase = x * W[f] + y * W[fourier + f];
        features[2 + f] = Math.cos(phase);
        features[2 + fourier + f] = Math.sin(phase);
      }
      for (let o = 0; o < width; o++) {
        const row = o * columns;
        let sum = first.bias[o] + first.weight[row] * x + first.weight[row + 1] * y;
        for (let f = 0; f < fourier; f++) {
          sum += first.weight[row + 3 + f] * features[2 + f];
          sum += first.weight[row + 3 + fourier + h + f] * features[2 + fourier + f];
        }
        base[b * width + o] = sum;
      }
    }
    return { z, base };
  }

  /** x(z, t) of encoded starts: (B x 2). */
  at({ z, base }, t) {
    const { width, fourier, h, first, hidden, out } = this;
    const time = Math.log(t) / 4;
    const columns = first.weight.length / width;
    const ofTime = new Float64Array(width);
    for (let o = 0; o < width; o++) {
      const row = o * columns;
      let sum = first.weight[row + 2] * time;
      for (let k = 0; k < h; k++) {
        sum += first.weight[row + 3 + fourier + k] * Math.cos(this.harmonics[k] * time);
        sum += first.weight[row + 3 + 2 * fourier + h + k] * Math.sin(this.harmonics[k] * time);
      }
      ofTime[o] = sum;
    }
    const [a, b] = BOUNDARIES[this.boundary](t, this.t_max, this.sigma_data);
    const x = new Float64Array(z.length);
    let now = new Float64Array(width);
    let next = new Float64Array(width);
    for (let s = 0; s < z.length / 2; s++) {
      for (let o = 0; o < width; o++) now[o] = silu(base[s * width + o] + ofTime[o]);
      for (const { weight, bias } of hidden) {
        for (let o = 0; o < width; o++) {
          let sum = bias[o];
          const row = o * width;
          for (let i = 0; i < width; i++) sum += weight[row + i] * now[i];
          next[o] = now[o] + silu(sum);
        }
        [now, next] = [next, now];
      }
      for (let d = 0; d < 2; d++) {
        let sum = out.bias[d];
        for (let i = 0; i < width; i++) sum += out.weight[d * width + i] * now[i];
        x[2 * s + d] = a * z[2 * s + d] + b * sum;
      }
    }
    return x;
  }
}
