// Seeded random numbers: the same view in the address gives the same noise and the same student.

/** A generator of 32-bit state (a Weyl sequence, hashed twice); its period of 2^32 is far beyond a run's draws. */
export class Random {
  constructor(seed) {
    this.state = seed >>> 0;
    this.spare = null;
  }

  /** Uniform in [0, 1). */
  uniform() {
    this.state = (this.state + 0x9e3779b9) >>> 0; // 2^32 over the golden ratio
    let bits = this.state;
    bits = Math.imul(bits ^ (bits >>> 16), 0x21f0aaad);
    bits = Math.imul(bits ^ (bits >>> 15), 0x735a2d97);
    return ((bits ^ (bits >>> 15)) >>> 0) / 2 ** 32;
  }

  /** Standard normal, by Box and Muller's transform, which makes two at a time. */
  normal() {
    if (this.spare !== null) {
      const value = this.spare;
      this.spare = null;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform())); // 1 - u is in (0, 1], whose logarithm is finite
    const angle = 2 * Math.PI * this.uniform();
    this.spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }
}

/** n points of noise, (2 n): standard normal times T. */
export function noise(n, T, seed) {
  const random = new Random(seed);
  return Float64Array.from({ length: 2 * n }, () => T * random.normal());
}
