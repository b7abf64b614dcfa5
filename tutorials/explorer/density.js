// The exact density behind the samples, as a small bitmap.

const SIDE = 48;

/** A bitmap of the density of data plus noise over the square [-range, range]^2, in units of `scale`. */
export class Density {
  constructor() {
    this.tile = document.createElement("canvas");
    this.tile.width = this.tile.height = SIDE;
    this.image = new ImageData(SIDE, SIDE);
  }

  /** Compute the bitmap; returns a canvas. */
  update(mixture, sigma, scale, range, colour) {
    const values = marginal(mixture, sigma, scale, range);
    const top = values.reduce((a, b) => Math.max(a, b));
    for (let i = 0; i < values.length; i++) {
      this.image.data.set(colour, 4 * i);
      this.image.data[4 * i + 3] = 110 * Math.sqrt(values[i] / top); // the root shows tails, too
    }
    this.tile.getContext("2d").putImageData(this.image, 0, 0);
    return this.tile;
  }
}

/** The density up to a factor, (SIDE, SIDE) from the top left. An isotropic Gaussian is a product of two factors. */
function marginal({ means, count, variance }, sigma, scale, range) {
  const values = new Float32Array(SIDE * SIDE);
  const total = variance + sigma * sigma;
  const at = Float64Array.from({ length: SIDE }, (_, i) => scale * range * ((2 * i + 1) / SIDE - 1));
  const [columns, rows] = [new Float64Array(SIDE), new Float64Array(SIDE)];
  for (let k = 0; k < count; k++) {
    for (let i = 0; i < SIDE; i++) {
      columns[i] = Math.exp((-0.5 * (at[i] - means[2 * k]) ** 2) / total);
      rows[i] = Math.exp((-0.5 * (-at[i] - means[2 * k + 1]) ** 2) / total); // y points up
    }
    for (let j = 0; j < SIDE; j++) {
      if (rows[j] < 1e-9) continue;
      for (let i = 0; i < SIDE; i++) values[j * SIDE + i] += rows[j] * columns[i];
    }
  }
  return values;
}
