// The visitor's settings, which the address holds and which export as Python.

import { PRESETS } from "./presets.js";
import { Mixture } from "./teacher.js";

export const MAX_POINTS = 96;
export const LIMIT = 2; // points are drawn in [-2, 2]^2
export const POINT_STD = 0.12; // of the Gaussian around each drawn point
export const GRIDS = [5, 10, 25, 50, 100, 250];
export const STEPS = [300, 1500, 5000];

const UNIT = 0.001; // points and noise are whole multiples of it, so that the address holds them exactly
const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"; // two for one of 4096 positions
const CENTRE = 2048;

export const DEFAULT = Object.freeze({
  preset: "ring", // or null, and the points count
  points: [], // (K, 2)
  n: 250, // grid points of teacher and student: n - 1 calls
  calls: null, // of the teacher that is shown; null for all n - 1
  time: 0, // 0 at t = T, 1 at t = T_MIN
  noise: [0.3, -0.2], // the point that is dragged, in units of T
  seed: 0, // of the noises that are shown
  steps: 1500,
  distilled: false, // whether a student has been trained for this view
});

const round = (value, unit) => Math.round(value / unit) * unit;
const clamp = (value, limit) => Math.min(limit, Math.max(-limit, value));

/** A number to the precision of the address. */
export const quantised = (value, limit = LIMIT) => +clamp(round(value, UNIT), limit).toFixed(3);

export function mixtureOf({ preset, points }) {
  const { means, std } = preset ? PRESETS[preset] : { means: points, std: POINT_STD };
  return new Mixture(means, std);
}

/** The calls that the teacher can be limited to: powers of two, and all. */
export function callsOf(n) {
  const calls = [];
  for (let k = 1; k < n - 1; k *= 2) calls.push(k);
  return [...calls, n - 1];
}

const encode = (points) =>
  points
    .flat()
    .map((v) => Math.round(v / UNIT) + CENTRE)
    .map((v) => DIGITS[v >> 6] + DIGITS[v & 63])
    .join("");

function decode(text) {
  const numbers = (text.match(/../g) ?? [])
    .map(([high, low]) => DIGITS.indexOf(high) * 64 + DIGITS.indexOf(low) - CENTRE)
    .map((v) => quantised(v * UNIT));
  return Array.from({ length: Math.min(MAX_POINTS, numbers.length >> 1) }, (_, k) => numbers.slice(2 * k, 2 * k + 2));
}

/** The part of the address after #: what differs from the default. */
export function toHash(view) {
  const set = new URLSearchParams();
  if (!view.preset) set.set("points", encode(view.points));
  for (const key of ["preset", "n", "calls", "seed", "steps"]) {
    if (view[key] !== null && view[key] !== DEFAULT[key]) set.set(key, view[key]);
  }
  if (view.time) set.set("time", +view.time.toFixed(3));
  if (String(view.noise) !== String(DEFAULT.noise)) set.set("noise", view.noise.join("_"));
  if (view.distilled) set.set("distilled", 1);
  return set.toString();
}

/** The view of an address; values that cannot be read are the default's. */
export function fromHash(hash) {
  const set = new URLSearchParams(hash.replace(/^#/, ""));
  const view = { ...DEFAULT };
  const whole = (key, allowed) => {
    const value = Number(set.get(key));
    if (set.has(key) && allowed(value)) view[key] = value;
  };
  if (Object.hasOwn(PRESETS, set.get("preset") ?? "")) view.preset = set.get("preset");
  const points = /^[\w-]+$/.test(set.get("points") ?? "") ? decode(set.get("points")) : [];
  if (points.length) Object.assign(view, { preset: null, points });
  whole("n", (v) => GRIDS.includes(v));
  whole("calls", (v) => callsOf(view.n).includes(v));
  whole("seed", (v) => Number.isInteger(v) && v >= 0 && v < 2 ** 31);
  whole("steps", (v) => STEPS.includes(v));
  whole("time", (v) => v >= 0 && v <= 1);
  const noise = (set.get("noise") ?? "").split("_").map(Number);
  if (noise.length === 2 && noise.every(Number.isFinite)) view.noise = noise.map((v) => quantised(v, 3));
  view.distilled = set.get("distilled") === "1";
  return view;
}

/** Python code that distils the same teacher by the same recipe. */
export function toPython({ preset, points, n, steps }) {
  const lines = ["import pidlearn as pid", ""];
  if (preset) {
    lines.push(`teacher = pid.toy("${preset}")`);
  } else {
    lines.push("points = [");
    for (let k = 0; k < points.length; k += 6) {
      lines.push(`    ${points.slice(k, k + 6).map(([x, y]) => `[${x}, ${y}],`).join(" ")}`);
    }
    lines.push("]", `teacher = pid.GaussianMixture(points, ${POINT_STD}**2)`);
  }
  lines.push(
    `result = pid.distill(teacher, steps=${steps}, n=${n}, seed=0)`,
    "print(result.evaluate())",
    "samples = result.sample(1000)  # one call of the student",
  );
  return `${lines.join("\n")}\n`;
}
