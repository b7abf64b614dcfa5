// The toy densities of pidlearn that are isotropic mixtures, by the same formulas as `pid.toy`.

const range = (n, f) => Array.from({ length: n }, (_, k) => f(k));

function ring() {
  return range(8, (k) => [Math.cos((2 * Math.PI * k) / 8), Math.sin((2 * Math.PI * k) / 8)]);
}

function grid() {
  return range(25, (k) => [0.6 * (Math.floor(k / 5) - 2), 0.6 * ((k % 5) - 2)]);
}

function checkerboard() {
  const squares = range(16, (k) => [Math.floor(k / 4), k % 4]);
  return squares.filter(([i, j]) => (i + j) % 2 === 0).map(([i, j]) => [0.8 * (i - 1.5), 0.8 * (j - 1.5)]);
}

function moons() {
  const angles = range(12, (k) => (Math.PI * k) / 11);
  const upper = angles.map((a) => [Math.cos(a) - 0.5, Math.sin(a) - 0.25]);
  return [...upper, ...upper.map(([x, y]) => [-x, -y])]; // the lower moon is the upper one reflected in the origin
}

function spiral() {
  // Square roots space the modes evenly along the arc, whose length grows with the square of the radius.
  const radii = range(24, (k) => Math.sqrt(0.04 + (0.96 * k) / 23));
  return radii.map((u) => [1.5 * u * Math.cos(3 * Math.PI * u), 1.5 * u * Math.sin(3 * Math.PI * u)]);
}

export const PRESETS = {
  ring: { means: ring(), std: 0.15 },
  grid: { means: grid(), std: 0.1 },
  checkerboard: { means: checkerboard(), std: 0.2 },
  moons: { means: moons(), std: 0.12 },
  spiral: { means: spiral(), std: 0.1 },
};
