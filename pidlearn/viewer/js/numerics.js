// Small numerics: the packed arrays of a scene, time grids, errors, and trajectories that are interpolated between
// their times.

const ARRAYS = { float32: Float32Array, float16: Uint16Array, int16: Int16Array, uint8: Uint8Array };

export function decode(packed) {
  if (!packed) return null;
  const bytes = Uint8Array.from(atob(packed.data), (c) => c.charCodeAt(0));
  let values = new ARRAYS[packed.dtype](bytes.buffer);
  if (packed.dtype === "float16") values = Float32Array.from(values, half);
  if (packed.scale) values = Float32Array.from(values, (v) => v * packed.scale);
  return { shape: packed.shape, values };
}

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

export function karras(n, [tMax, tMin], rho) {
  const top = tMax ** (1 / rho);
  const bottom = tMin ** (1 / rho);
  const grid = Float64Array.from({ length: n }, (_, i) => (top + (i / (n - 1)) * (bottom - top)) ** rho);
  grid[0] = tMax;
  grid[n - 1] = tMin;
  return grid;
}

export function rmse(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
  return Math.sqrt(sum / a.length);
}

/** Values (N x size) at decreasing or increasing times, interpolated linearly in t. */
export class Path {
  constructor(times, x, size) {
    this.times = times;
    this.x = x;
    this.size = size;
  }

  at(t) {
    const { times, size, x } = this;
    const down = times[0] > times[times.length - 1];
    let i = 0;
    while (i + 2 < times.length && (down ? times[i + 1] > t : times[i + 1] < t)) i++;
    const share = Math.min(1, Math.max(0, (t - times[i]) / (times[i + 1] - times[i])));
    const out = new Float64Array(size);
    for (let j = 0; j < size; j++) out[j] = x[i * size + j] * (1 - share) + x[(i + 1) * size + j] * share;
    return out;
  }

  end() {
    return this.x.subarray(this.x.length - this.size);
  }
}
