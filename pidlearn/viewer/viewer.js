// The viewer of pidlearn: an animated, interactive picture in one file without dependencies.
//
// The app (as a Streamlit component), notebooks, documentation pages and downloaded HTML all load this file and pass it
// a scene, the JSON that pidlearn.viewer writes. The teacher's vector field and small students are evaluated here, in
// the browser, so that dragging a noise point or the number of steps never waits for a server.
//
// A point is drawn at y = x / s(t) with s = sqrt(sigma_data^2 + t^2), which gives noise and data the same scale; an ODE
// other than a diffusion has s = 1.

const STEPS = [2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 25, 35, 50, 80, 120, 180, 250];
const SECONDS = 5; // duration of one run from noise to data
const REST = 1.5; // seconds of pause at the end of a run
const REACH = 2.9; // half-height of the plane in units of s
const INSIDE = 2.75; // limit of the noise point, which keeps its whole ring inside the plane
const MAX_HEIGHT = 500; // of a plane in pixels: picture and controls together fit the screen of a laptop
const TRAILS = { flow: 20, other: 6 }; // trajectories drawn behind the points; those of other ODEs wind, so fewer of them
const FINE = 500; // Heun grid points of a single trajectory that stands in for the exact one
const HANDOVER_STEPS = 16;
const GRASP = 32; // radius in pixels within which a finger grabs the noise point
const COLOURS = { student: "#d55e00", probe: "#f0e442", density: [0, 114, 178] }; // Okabe & Ito: distinguishable with every kind of colour vision

// ---------------------------------------------------------------------------------------------------- numerics

const ARRAYS = { float32: Float32Array, float16: Uint16Array, int16: Int16Array, uint8: Uint8Array };

function decode(packed) {
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

function rmse(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
  return Math.sqrt(sum / a.length);
}

// ------------------------------------------------------------------------------------------- teacher and student

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

/** Values (N x size) at decreasing or increasing times, interpolated linearly in t. */
class Path {
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

const BOUNDARIES = {
  hard: (t, T) => [t / T, 1 - t / T],
  increment: (t, T) => [1, t - T],
  soft: (t, T, sigmaData) => [0, Math.hypot(t, sigmaData)],
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

// ------------------------------------------------------------------------------------------------------ the scene

/** A scene with its arrays decoded. Positions of teacher and students are computed when first needed, and cached. */
class Model {
  constructor(scene) {
    this.scene = scene;
    this.times = scene.times;
    this.last = scene.times.length - 1;
    this.starts = scene.starts ? Float64Array.from(decode(scene.starts).values) : new Float64Array(0);
    this.count = this.starts.length / 2;
    this.mixture = scene.mixture ? new Mixture(scene.mixture) : null;
    this.exact = scene.exact ? this.recorded(scene.exact) : null;
    this.trails = Math.min(scene.sigma_data === null ? TRAILS.other : TRAILS.flow, this.count);
    this.panels = scene.panels.map((panel) => this.prepare(panel));
    this.solved = new Map();
  }

  scale(t) {
    return this.scene.sigma_data === null ? 1 : Math.hypot(this.scene.sigma_data, t);
  }

  /** The time at position u, a fractional frame number: log-linear for a diffusion, linear for other ODEs. */
  time(u) {
    const i = Math.min(this.last - 1, Math.floor(u));
    const [a, b] = [this.times[i], this.times[i + 1]];
    if (this.scene.sigma_data === null) return a + (u - i) * (b - a);
    return a * (b / a) ** (u - i);
  }

  /** Recorded trajectories, which are stored as y = x / s(t). */
  recorded(packed) {
    const { values, shape } = decode(packed);
    const size = shape[1] * shape[2];
    const x = new Float64Array(values.length);
    this.times.forEach((t, f) => {
      for (let j = 0; j < size; j++) x[f * size + j] = values[f * size + j] * this.scale(t);
    });
    return new Path(this.times, x, size);
  }

  prepare(panel) {
    if (panel.type === "heat") return { ...panel, values: decode(panel.values), order: decode(panel.order).values };
    if (panel.type === "images") {
      return { ...panel, rows: panel.rows.map((row) => ({ ...row, frames: decode(row.frames) })) };
    }
    const ready = { ...panel, frames: new Map() };
    if (panel.student?.frames) ready.path = this.recorded(panel.student.frames);
    else if (panel.student) {
      ready.student = new Student(panel.student);
      ready.encoded = ready.student.encode(this.starts);
      ready.encodedTrails = ready.student.encode(this.starts.slice(0, 2 * this.trails));
      ready.tails = new Map();
    }
    return ready;
  }

  get planes() {
    return this.panels.filter((panel) => panel.type === "plane");
  }

  /** The teacher's trajectories from all starts, by the selected solver. */
  teacher(view) {
    if (view.solver === "exact" || !this.mixture) return this.exact;
    const key = `${view.solver} ${view.n}`;
    if (!this.solved.has(key)) {
      if (this.solved.size > 24) this.solved.clear();
      this.solved.set(key, solve(this.mixture, this.starts, this.grid(view.n), view.solver));
    }
    return this.solved.get(key);
  }

  grid(n) {
    return karras(n, this.scene.span, this.scene.rho);
  }

  /** The student's points at time t; after a handover, those of the teacher's solver from there. */
  cloud(panel, view, t) {
    if (panel.path) return panel.path.at(t);
    if (!panel.student) return null;
    const [tStar, k] = this.handover(panel, view);
    if (k && t < tStar) {
      const key = `${tStar} ${k}`;
      if (panel.continued?.key !== key) {
        const from = panel.student.at(panel.encoded, tStar);
        const grid = karras(k + 1, [tStar, this.scene.span[1]], this.scene.rho);
        panel.continued = { key, path: solve(this.mixture, from, grid, "heun") };
      }
      return panel.continued.path.at(t);
    }
    if (!panel.frames.has(t)) {
      if (panel.frames.size > 400) panel.frames.clear();
      panel.frames.set(t, panel.student.at(panel.encoded, t));
    }
    return panel.frames.get(t);
  }

  /** As `cloud`, for the samples with a trail only: in a still picture, only they need earlier times. */
  tail(panel, view, t) {
    if (!panel.tails || panel.frames.has(t) || this.handover(panel, view)[1]) return this.cloud(panel, view, t);
    if (!panel.tails.has(t)) panel.tails.set(t, panel.student.at(panel.encodedTrails, t));
    return panel.tails.get(t);
  }

  handover(panel, view) {
    return panel.handover ? [this.times[view.handover], view.steps] : [0, 0];
  }

  /** Points at position u between two frames, interpolated as drawn (y); only whole frames are cached. */
  between(panel, view, u) {
    const i = Math.min(this.last - 1, Math.floor(u));
    const a = this.cloud(panel, view, this.times[i]);
    if (!a || u === i) return a;
    const b = this.cloud(panel, view, this.times[i + 1]);
    const [sa, sb, s] = [this.scale(this.times[i]), this.scale(this.times[i + 1]), this.scale(this.time(u))];
    const share = u - i;
    return a.map((v, j) => ((v / sa) * (1 - share) + (b[j] / sb) * share) * s);
  }

  /** Whether trajectories can be computed from any start; otherwise only from the recorded ones. */
  get free() {
    return Boolean(this.mixture) && !this.planes.some((panel) => panel.path);
  }

  /** Both trajectories from one start, as one x per frame: [teacher, student]. */
  single(panel, view, probe) {
    if (!this.free) {
      const i = this.nearest(probe);
      const pick = (path) => path && this.times.map((t) => path.at(t).slice(2 * i, 2 * i + 2));
      return [pick(this.exact), pick(panel.path)];
    }
    const exact = view.solver === "exact";
    const teacher = solve(this.mixture, probe, this.grid(exact ? FINE : view.n), exact ? "heun" : view.solver);
    const drawn = this.times.map((t) => teacher.at(t));
    if (!panel.student) return [drawn, null];
    const encoded = panel.student.encode(Float64Array.from(probe));
    const [tStar, k] = this.handover(panel, view);
    const after =
      k &&
      solve(
        this.mixture,
        panel.student.at(encoded, tStar),
        karras(k + 1, [tStar, this.scene.span[1]], this.scene.rho),
        "heun",
      );
    const student = this.times.map((t) => (k && t < tStar ? after.at(t) : panel.student.at(encoded, t)));
    return [drawn, student];
  }

  nearest([x, y]) {
    let best = 0;
    let least = Infinity;
    for (let i = 0; i < this.count; i++) {
      const d = (this.starts[2 * i] - x) ** 2 + (this.starts[2 * i + 1] - y) ** 2;
      if (d < least) [least, best] = [d, i];
    }
    return best;
  }

  /** The samples that end in a different mode than the teacher's. */
  wrong(student, teacher) {
    if (!this.mixture || !this.scene.modes || !student) return new Set();
    const wrong = new Set();
    for (let i = 0; i < this.count; i++) {
      const [a, b] = [student, teacher].map((x) => this.mixture.component(x[2 * i], x[2 * i + 1]));
      if (a !== b) wrong.add(i);
    }
    return wrong;
  }

  /** Errors of a panel's student at the endpoint; wrong modes are relative to the teacher as drawn. */
  metrics(panel, view) {
    const teacher = this.teacher(view);
    const key = `${view.solver} ${view.n} ${this.handover(panel, view)}`;
    if (panel.metrics?.key === key) return panel.metrics;
    const student = this.cloud(panel, view, this.times[this.last]);
    const end = teacher?.end();
    const exact = this.exact?.end();
    panel.metrics = {
      key,
      wrong: student && end ? this.wrong(student, end) : new Set(),
      toTeacher: student && end ? rmse(student, end) : null,
      toExact: student && exact ? rmse(student, exact) : null,
      teacherToExact: end && exact && view.solver !== "exact" ? rmse(end, exact) : null,
    };
    return panel.metrics;
  }
}

// ----------------------------------------------------------------------------------------------------- the picture

const CSS = `
.pidlearn { font: 14px/1.4 var(--st-font, system-ui, sans-serif); color: var(--ink); --ink: #222; --paper: #fff;
  --faint: #767676; --line: #ccc; container-type: inline-size; }
.pidlearn.dark { --ink: #eee; --paper: #0e1117; --faint: #a0a0a0; --line: #444; }
.pidlearn canvas { display: block; width: 100%; touch-action: pan-y; cursor: crosshair; }
.pidlearn canvas:focus-visible { outline: 3px solid #56b4e9; outline-offset: 1px; }
.pidlearn .legend, .pidlearn .row { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: center; margin: 4px 0; }
.pidlearn .legend { font-size: 13px; color: var(--faint); }
.pidlearn .legend svg { width: 16px; height: 16px; vertical-align: -3px; margin-right: 3px; }
.pidlearn label { display: flex; gap: 6px; align-items: center; white-space: nowrap; }
.pidlearn label.wide { flex: 1 1 220px; }
.pidlearn input[type=range] { flex: 1 1 90px; min-width: 90px; accent-color: ${COLOURS.student}; }
.pidlearn input[type=checkbox] { accent-color: ${COLOURS.student}; }
.pidlearn output { display: inline-block; min-width: 5.4em; font-variant-numeric: tabular-nums; }
.pidlearn button, .pidlearn select { font: inherit; color: inherit; background: var(--paper);
  border: 1px solid var(--line); border-radius: 6px; padding: 3px 10px; min-height: 30px; cursor: pointer; }
.pidlearn button { min-width: 5.6em; }
.pidlearn .summary { margin: 6px 0 0; font-variant-numeric: tabular-nums; }
.pidlearn .summary b { color: ${COLOURS.student}; }
.pidlearn.dark .summary b { color: #ff8c42; }
.pidlearn .keys { margin: 2px 0 0; font-size: 12px; color: var(--faint); }
`;

const LEGEND = {
  student: `<circle cx="8" cy="8" r="4.5" fill="${COLOURS.student}"/>`,
  teacher: `<circle cx="8" cy="8" r="5" fill="none" stroke="currentColor" stroke-width="1.8"/>`,
  wrong: `<path d="M3 3l10 10M13 3l-10 10" stroke="currentColor" stroke-width="2.2"/>`,
  probe: `<circle cx="8" cy="8" r="5.5" fill="none" stroke="currentColor" stroke-width="5"/><circle
    cx="8" cy="8" r="5.5" fill="none" stroke="${COLOURS.probe}" stroke-width="3"/>`,
};

/** Draws all panels on one canvas: side by side, or one below the other if it is narrow. */
class Picture {
  constructor(canvas, model) {
    this.canvas = canvas;
    this.model = model;
    this.context = canvas.getContext("2d");
    this.densities = new Map();
    this.sprites = new Map();
  }

  /** Compute each panel's box in CSS pixels, and resize the canvas. */
  layout(width) {
    const { panels } = this.model;
    const gap = 14;
    const title = panels.some((panel) => panel.title) ? 24 : 0;
    const across = width < 560 ? 1 : panels.length;
    const cell = (width - gap * (across - 1)) / across;
    this.boxes = [];
    let y = 0;
    let x = 0;
    let deepest = 0;
    for (const panel of panels) {
      const height = this.height(panel, cell);
      this.boxes.push({ x, y: y + title, width: cell, height, title });
      deepest = Math.max(deepest, height + title);
      if (across === 1) {
        y += height + title + gap;
        deepest = 0;
      } else x += cell + gap;
    }
    const total = Math.ceil(across === 1 ? y - gap : deepest);
    const ratio = Math.min(2, globalThis.devicePixelRatio || 1);
    this.ratio = ratio;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(total * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(total * ratio);
      this.canvas.style.height = `${total}px`;
    }
  }

  height(panel, width) {
    if (panel.type === "images") return this.tiles(panel, width).height;
    return Math.min(width, MAX_HEIGHT);
  }

  draw(view, u, theme) {
    const { context: c, model } = this;
    this.theme = theme;
    c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    c.clearRect(0, 0, this.canvas.width / this.ratio, this.canvas.height / this.ratio);
    model.panels.forEach((panel, i) => {
      const box = this.boxes[i];
      if (panel.title) {
        c.fillStyle = theme.ink;
        c.font = "600 13px system-ui, sans-serif";
        c.textAlign = "left";
        c.textBaseline = "alphabetic";
        c.fillText(panel.title, box.x + 2, box.y - 8, box.width);
      }
      c.save();
      c.beginPath();
      c.rect(box.x, box.y, box.width, box.height);
      c.clip();
      this[panel.type](panel, box, view, u);
      c.restore();
      if (panel.type !== "images") {
        c.strokeStyle = theme.line;
        c.lineWidth = 1;
        c.strokeRect(box.x + 0.5, box.y + 0.5, box.width - 1, box.height - 1);
      }
    });
  }

  /** Coordinate transforms of a plane: from y to pixels, and back. */
  lens(box) {
    const { limits } = this.model.scene;
    const [[x0, x1], [y0, y1]] = limits ?? [
      [-REACH, REACH],
      [-REACH, REACH],
    ];
    if (limits) {
      const [kx, ky] = [box.width / (x1 - x0), box.height / (y1 - y0)];
      return {
        to: (x, y) => [box.x + (x - x0) * kx, box.y + box.height - (y - y0) * ky],
        from: (px, py) => [x0 + (px - box.x) / kx, y0 + (box.y + box.height - py) / ky],
      };
    }
    const k = Math.min(box.width, box.height) / (2 * REACH);
    const [cx, cy] = [box.x + box.width / 2, box.y + box.height / 2];
    return {
      to: (x, y) => [cx + k * x, cy - k * y],
      from: (px, py) => [(px - cx) / k, (cy - py) / k],
      k,
    };
  }

  /** The scale that x is divided by before it is drawn: s(t), or in the raw view that of the noise at every t. */
  divisor(view, t) {
    return view.raw ? this.model.scale(this.model.times[0]) : this.model.scale(t);
  }

  plane(panel, box, view, u) {
    const { context: c, model, theme } = this;
    const t = model.time(u);
    const lens = this.lens(box);
    c.fillStyle = theme.paper;
    c.fillRect(box.x, box.y, box.width, box.height);
    if (model.mixture && !view.raw) {
      if (view.density) this.density(box, lens, Math.round(u));
      if (view.flow) this.flow(box, lens, t);
    }
    const teacher = model.teacher(view);
    const { wrong } = model.metrics(panel, view);
    const now = model.between(panel, view, u);
    const target = teacher?.at(t);
    const s = this.divisor(view, t);
    const place = (x, i) => lens.to(x[2 * i] / s, x[2 * i + 1] / s);

    if (view.trails) {
      const all = [...Array(model.trails).keys()];
      if (teacher) this.trail(all, (f) => teacher.at(model.times[f]), lens, view, u, theme.teacher, 2.6, 0.55);
      if (now) this.trail(all, (f) => model.tail(panel, view, model.times[f]), lens, view, u, COLOURS.student, 1.2, 0.9);
    }
    if (now && target) {
      c.strokeStyle = theme.faint;
      c.globalAlpha = 0.6;
      c.lineWidth = 0.8;
      c.beginPath();
      for (let i = 0; i < model.count; i++) {
        c.moveTo(...place(now, i));
        c.lineTo(...place(target, i));
      }
      c.stroke();
      c.globalAlpha = 1;
    }
    if (target) {
      const ring = this.sprite("ring", theme.teacher);
      for (let i = 0; i < model.count; i++) this.stamp(ring, ...place(target, i));
    }
    if (now) {
      const dot = this.sprite("dot", COLOURS.student);
      for (let i = 0; i < model.count; i++) if (!wrong.has(i)) this.stamp(dot, ...place(now, i));
      const cross = this.sprite("cross", theme.ink);
      for (const i of wrong) this.stamp(cross, ...place(now, i));
    }
    if (panel.student?.boundary === "soft") this.gap(panel, view, lens);
    this.probe(panel, view, u, lens);
    this.axes(box, view, t);
  }

  /** Draw the trajectories of some samples up to position u. */
  trail(samples, frame, lens, view, u, colour, width, alpha) {
    const { context: c, model } = this;
    c.strokeStyle = colour;
    c.lineWidth = width;
    c.globalAlpha = alpha;
    c.lineJoin = "round";
    const whole = Math.floor(u);
    const points = [];
    for (let f = 0; f <= whole; f++) {
      const s = this.divisor(view, model.times[f]);
      points.push([frame(f), s]);
    }
    c.beginPath();
    for (const i of samples) {
      points.forEach(([x, s], f) => {
        const at = lens.to(x[2 * i] / s, x[2 * i + 1] / s);
        if (f) c.lineTo(...at);
        else c.moveTo(...at);
      });
    }
    c.stroke();
    c.globalAlpha = 1;
  }

  /** Draw arrows from z to x(z, T), which a soft boundary does not force to be equal. */
  gap(panel, view, lens) {
    const { context: c, model, theme } = this;
    const s = this.divisor(view, model.times[0]);
    const x = model.cloud(panel, view, model.times[0]);
    c.strokeStyle = theme.ink;
    c.lineWidth = 1.2;
    c.beginPath();
    for (let i = 0; i < Math.min(60, model.count); i++) {
      const from = lens.to(model.starts[2 * i] / s, model.starts[2 * i + 1] / s);
      const to = lens.to(x[2 * i] / s, x[2 * i + 1] / s);
      arrow(c, ...from, ...to, 5);
    }
    c.stroke();
  }

  /** Draw the noise point that can be dragged, and both its trajectories to the endpoint. */
  probe(panel, view, u, lens) {
    const { context: c, model, theme } = this;
    if (!view.probe) return;
    const key = [panel.title, view.probe, view.solver, view.n, model.handover(panel, view)].join();
    if (panel.probed?.key !== key) panel.probed = { key, paths: model.single(panel, view, view.probe) };
    const styles = [
      [theme.teacher, 4],
      [COLOURS.student, 2],
    ];
    panel.probed.paths.forEach((path, which) => {
      if (!path) return;
      const [colour, width] = styles[which];
      const at = path.map((x, f) => {
        const s = this.divisor(view, model.times[f]);
        return lens.to(x[0] / s, x[1] / s);
      });
      c.strokeStyle = colour;
      c.lineWidth = width;
      c.lineJoin = "round";
      c.beginPath();
      at.forEach((p, f) => (f ? c.lineTo(...p) : c.moveTo(...p)));
      c.stroke();
      const end = at[at.length - 1];
      c.fillStyle = colour;
      c.beginPath();
      c.arc(...end, width + 2, 0, 7);
      c.fill();
    });
    const at = this.ring(lens, view);
    c.fillStyle = theme.paper;
    c.beginPath();
    c.arc(...at, 8, 0, 7);
    c.fill();
    for (const [colour, width] of [[theme.ink, 6], [COLOURS.probe, 3.5]]) {
      c.strokeStyle = colour;
      c.lineWidth = width;
      c.stroke();
    }
  }

  /** The position of the noise point in pixels. */
  ring(lens, view) {
    const s = this.divisor(view, this.model.times[0]);
    return lens.to(view.probe[0] / s, view.probe[1] / s);
  }

  probeAt(panel, view) {
    return view.probe && this.ring(this.lens(this.boxes[panel]), view);
  }

  axes(box, view, t) {
    const { context: c, model, theme } = this;
    const { axes, sigma_data: sigma } = model.scene;
    c.fillStyle = theme.faint;
    c.font = "11px system-ui, sans-serif";
    c.textBaseline = "alphabetic";
    c.textAlign = "right";
    const unit = sigma === null ? axes[0] : view.raw ? "x, not rescaled" : "x / √(σ² + t²)";
    const write = (text, x, y) => {
      c.lineWidth = 4;
      c.lineJoin = "round";
      c.strokeStyle = theme.paper; // an outline keeps the text readable on any background
      c.strokeText(text, x, y);
      c.fillText(text, x, y);
    };
    write(unit, box.x + box.width - 6, box.y + box.height - 6);
    c.textAlign = "left";
    if (sigma === null) write(axes[1], box.x + 6, box.y + 14);
    write(`t = ${number(t)}`, box.x + 6, box.y + box.height - 6);
  }

  /** Draw the density at a frame's noise level; its image is computed once. */
  density(box, lens, frame) {
    const { model, context: c } = this;
    const side = 84;
    const across = Math.round((side * box.width) / box.height);
    const reach = (REACH * across) / side;
    const key = `${frame} ${across}`;
    if (!this.densities.has(key)) {
      const t = model.times[frame];
      const s = model.scale(t);
      const values = new Float64Array(across * side);
      let top = 0;
      for (let j = 0; j < side; j++) {
        for (let i = 0; i < across; i++) {
          const x = reach * ((2 * i + 1) / across - 1) * s;
          const y = -REACH * ((2 * j + 1) / side - 1) * s;
          const p = (values[j * across + i] = model.mixture.density(x, y, t));
          if (p > top) top = p;
        }
      }
      const [r, g, b] = COLOURS.density;
      const image = new ImageData(across, side);
      values.forEach((p, k) => image.data.set([r, g, b, 165 * (p / top) ** 0.7], 4 * k));
      const tile = document.createElement("canvas");
      tile.width = across;
      tile.height = side;
      tile.getContext("2d").putImageData(image, 0, 0);
      this.densities.set(key, tile);
    }
    const [x0, y0] = lens.to(-reach, REACH);
    const [x1, y1] = lens.to(reach, -REACH);
    c.imageSmoothingEnabled = true;
    c.drawImage(this.densities.get(key), x0, y0, x1 - x0, y1 - y0);
  }

  /** Draw arrows in the direction in which the flow moves y as t decreases: -t dy/dt, of order one at every t. */
  flow(box, lens, t) {
    const { context: c, model, theme } = this;
    const s = model.scale(t);
    const d = [0, 0];
    const lines = 15;
    const across = Math.round((lines * box.width) / box.height);
    const reach = (REACH * across) / lines;
    c.strokeStyle = theme.faint;
    c.globalAlpha = 0.75;
    c.lineWidth = 1;
    c.beginPath();
    for (let i = 0; i < across; i++) {
      for (let j = 0; j < lines; j++) {
        const a = reach * ((2 * i + 1) / across - 1);
        const b = REACH * ((2 * j + 1) / lines - 1);
        model.mixture.denoise(a * s, b * s, t, d);
        // y = x / s and t dx/dt = x - D give -t dy/dt = D / s - y sigma_data^2 / s^2.
        const pull = (model.scene.sigma_data / s) ** 2;
        let [va, vb] = [d[0] / s - a * pull, d[1] / s - b * pull];
        const size = Math.hypot(va, vb);
        const length = (0.36 * size) / (size + 0.6);
        if (size < 1e-6) continue;
        [va, vb] = [(va / size) * length, (vb / size) * length];
        arrow(c, ...lens.to(a - va / 2, b - vb / 2), ...lens.to(a + va / 2, b + vb / 2), 3.2);
      }
    }
    c.stroke();
    c.globalAlpha = 1;
  }

  /** Draw a heat map of residuals: one row per sample, one column per frame. */
  heat(panel, box, view, u) {
    const { context: c, model, theme } = this;
    const [rows, columns] = panel.values.shape;
    if (!panel.tile) {
      const [low, high] = panel.range;
      const image = new ImageData(columns, rows);
      panel.values.values.forEach((v, k) => image.data.set([...viridis((v - low) / (high - low)), 255], 4 * k));
      panel.tile = document.createElement("canvas");
      panel.tile.width = columns;
      panel.tile.height = rows;
      panel.tile.getContext("2d").putImageData(image, 0, 0);
    }
    c.imageSmoothingEnabled = false;
    c.drawImage(panel.tile, box.x, box.y, box.width, box.height);
    const x = box.x + (box.width * (u + 0.5)) / (model.last + 1);
    c.lineWidth = 1.5;
    c.strokeStyle = "#fff";
    c.beginPath();
    c.moveTo(x, box.y);
    c.lineTo(x, box.y + box.height);
    c.stroke();
    if (view.row !== null) {
      const y = box.y + (box.height * view.row) / rows;
      // White inside black is visible on dark rows and on bright ones.
      for (const [colour, width] of [["#000", 5], ["#fff", 2]]) {
        c.strokeStyle = colour;
        c.lineWidth = width;
        c.strokeRect(box.x + 2, y - 2, box.width - 4, box.height / rows + 4);
      }
    }
    c.font = "11px system-ui, sans-serif";
    c.fillStyle = "#fff";
    c.shadowColor = "#000";
    c.shadowBlur = 4;
    c.textAlign = "left";
    c.textBaseline = "top";
    c.fillText("smallest error at the endpoint", box.x + 6, box.y + 6);
    c.textBaseline = "alphabetic";
    c.fillText("largest error at the endpoint", box.x + 6, box.y + box.height - 20);
    c.fillText("t = " + number(model.times[0]), box.x + 6, box.y + box.height - 6);
    c.textAlign = "right";
    c.fillText("t = " + number(model.times[model.last]), box.x + box.width - 6, box.y + box.height - 6);
    c.shadowBlur = 0;
  }

  tiles(panel, width) {
    const count = panel.rows[0].frames.shape[1];
    const label = 118;
    const gap = 4;
    const across = Math.max(3, Math.min(count, Math.floor((width - label) / 64)));
    const size = Math.min(96, (width - label) / across - gap);
    const shown = Math.min(count, across * Math.ceil(Math.min(count, 24) / across));
    const bands = Math.ceil(shown / across);
    return { label, gap, across, size, shown, height: bands * panel.rows.length * (size + gap) + (bands - 1) * 12 };
  }

  images(panel, box, view, u) {
    const { context: c, theme } = this;
    const { label, gap, across, size, shown } = this.tiles(panel, box.width);
    const frame = Math.round(u);
    c.imageSmoothingEnabled = false;
    c.textBaseline = "middle";
    panel.rows.forEach((row, r) => {
      const [, count, side] = row.frames.shape;
      for (let i = 0; i < shown; i++) {
        const band = Math.floor(i / across);
        const y = box.y + band * (panel.rows.length * (size + gap) + 12) + r * (size + gap);
        if (i % across === 0) {
          c.fillStyle = row.title.startsWith("student") ? COLOURS.student : theme.ink;
          c.font = "600 12px system-ui, sans-serif";
          c.textAlign = "right";
          c.fillText(row.title, box.x + label - 10, y + size / 2, label - 12);
        }
        const x = box.x + label + (i % across) * (size + gap);
        c.drawImage(this.tile(row, frame, i, count, side), x, y, size, size);
      }
    });
  }

  tile(row, frame, i, count, side) {
    row.tiles ??= new Map();
    const key = frame * count + i;
    if (!row.tiles.has(key)) {
      const image = new ImageData(side, side);
      const pixels = row.frames.values.subarray(key * side * side, (key + 1) * side * side);
      pixels.forEach((v, k) => image.data.set([v, v, v, 255], 4 * k));
      const tile = document.createElement("canvas");
      tile.width = tile.height = side;
      tile.getContext("2d").putImageData(image, 0, 0);
      row.tiles.set(key, tile);
    }
    return row.tiles.get(key);
  }

  /** Return a mark as an image: drawn once, stamped many times. */
  sprite(shape, colour) {
    const key = `${shape} ${colour} ${this.ratio}`;
    if (!this.sprites.has(key)) {
      const size = 14;
      const tile = document.createElement("canvas");
      tile.width = tile.height = size * this.ratio;
      const c = tile.getContext("2d");
      c.scale(this.ratio, this.ratio);
      c.fillStyle = c.strokeStyle = colour;
      c.lineWidth = shape === "cross" ? 2 : 1.5;
      c.beginPath();
      if (shape === "dot") c.arc(7, 7, 2.4, 0, 7);
      if (shape === "ring") c.arc(7, 7, 3.6, 0, 7);
      if (shape === "cross") {
        c.moveTo(3, 3);
        c.lineTo(11, 11);
        c.moveTo(11, 3);
        c.lineTo(3, 11);
      }
      if (shape === "dot") c.fill();
      else c.stroke();
      this.sprites.set(key, tile);
    }
    return this.sprites.get(key);
  }

  stamp(sprite, x, y) {
    this.context.drawImage(sprite, x - 7, y - 7, 14, 14);
  }
}

function arrow(c, x0, y0, x1, y1, head) {
  const length = Math.hypot(x1 - x0, y1 - y0);
  if (length < 0.5) return;
  const [ux, uy] = [(x1 - x0) / length, (y1 - y0) / length];
  c.moveTo(x0, y0);
  c.lineTo(x1, y1);
  c.moveTo(x1 - head * (ux + 0.6 * uy), y1 - head * (uy - 0.6 * ux));
  c.lineTo(x1, y1);
  c.lineTo(x1 - head * (ux - 0.6 * uy), y1 - head * (uy + 0.6 * ux));
}

const VIRIDIS = [
  [68, 1, 84],
  [59, 82, 139],
  [33, 145, 140],
  [94, 201, 98],
  [253, 231, 37],
];

function viridis(share) {
  const u = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const i = Math.min(VIRIDIS.length - 2, Math.floor(u));
  return VIRIDIS[i].map((v, k) => v + (u - i) * (VIRIDIS[i + 1][k] - v));
}

function number(v) {
  if (v === 0) return "0";
  const size = Math.abs(v);
  if (size >= 100) return v.toFixed(0);
  return size >= 1 ? v.toFixed(1) : v.toPrecision(2).replace(/e-(\d)$/, "e-$1");
}

// --------------------------------------------------------------------------------------------------- the controls

const SOLVERS = { euler: "Euler", heun: "Heun", exact: "exact (SciPy)" };

/** Handles controls, pointer and keys, and redraws when something has changed. */
class Viewer {
  constructor(root, scene, onview) {
    this.root = root;
    this.onview = onview;
    this.box = document.createElement("div");
    this.box.className = "pidlearn";
    const style = document.createElement("style");
    style.textContent = CSS;
    root.append(style, this.box);
    this.resizer = new ResizeObserver(() => this.redraw());
    this.resizer.observe(this.box);
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.onscheme = () => this.redraw();
    this.dark.addEventListener("change", this.onscheme);
    this.drawn = 0;
    this.show(scene);
  }

  show(scene) {
    if (scene.id === this.scene?.id) return; // the same scene: keep the visitor's view
    // A new state of a student in training: keep the view, and the teacher's solutions.
    const updated = scene.stage !== undefined && scene.stage === this.scene?.stage;
    const solved = this.model?.solved;
    this.scene = scene;
    this.model = new Model(scene);
    if (updated) {
      this.model.solved = solved;
      this.picture.model = this.model;
      this.label();
      this.redraw();
      return;
    }
    this.view = { ...scene.view };
    this.view.handover = Math.min(this.view.handover, Math.max(0, this.model.last - 1));
    const heat = this.model.panels.find((panel) => panel.type === "heat");
    if (this.view.row !== null) this.view.row = heat ? Math.min(this.view.row, heat.values.shape[0] - 1) : null;
    if (!this.view.probe && this.model.count) {
      const sample = this.view.row === null ? 0 : heat.order[this.view.row];
      this.view.probe = [...this.start(sample)];
    }
    this.u = Math.min(this.model.last, Math.max(0, scene.view.frame));
    this.build();
    this.play(scene.view.play && !this.still.matches);
    this.redraw();
  }

  build() {
    const { scene, model, view } = this;
    const live = Boolean(model.mixture);
    const planes = model.planes.length > 0;
    const heat = model.panels.some((panel) => panel.type === "heat");
    const legend = [
      ["student", scene.names?.student ?? "student, one call", planes],
      ["teacher", scene.names?.teacher ?? "teacher", planes],
      ["wrong", "student ends in a different mode than the teacher", planes && live && scene.modes],
      ["probe", model.free ? "drag this noise point" : "select a start", planes && model.count],
    ];
    const marks = legend
      .filter(([, , shown]) => shown)
      .map(([mark, text]) => `<span><svg viewBox="0 0 16 16" aria-hidden="true">${LEGEND[mark]}</svg>${escape(text)}</span>`);
    const check = (name, text) =>
      `<label><input type="checkbox" data-view="${name}" ${view[name] ? "checked" : ""}>${text}</label>`;
    const solvers = Object.entries(SOLVERS).filter(([name]) => name !== "exact" || model.exact);
    const options = solvers.map(
      ([name, text]) => `<option value="${name}" ${view.solver === name ? "selected" : ""}>${text}</option>`,
    );
    const handing = model.planes.some((panel) => panel.handover);
    this.box.innerHTML = `
      <div class="legend">${marks.join("")}</div>
      <canvas tabindex="0" role="img"></canvas>
      <div class="row">
        <button type="button" data-act="play"></button>
        <label class="wide">time <input type="range" data-act="time" min="0" max="${model.last}" step="any"
          aria-label="time along the trajectory"><output aria-live="off" data-output="time"></output></label>
        ${handing ? `<label class="wide">student until <input type="range" data-act="handover" min="1" max="${model.last - 1}"
          step="1" value="${view.handover}" aria-label="time at which the teacher takes over"><output aria-live="off" data-output="handover"></output></label>
        <label class="wide">then Heun steps <input type="range" data-act="steps" min="0" max="${HANDOVER_STEPS}" step="1"
          value="${view.steps}" aria-label="Heun steps of the teacher after the student"><output aria-live="off" data-output="steps"></output></label>` : ""}
        ${live ? `<label class="wide">N <input type="range" data-act="n" min="0" max="${STEPS.length - 1}" step="1"
          aria-label="N, number of grid points of the teacher's solver"><output aria-live="off" data-output="n"></output></label>
        <label>teacher <select data-act="solver">${options.join("")}</select></label>` : ""}
        ${live ? check("density", "density") + check("flow", "flow") : ""}
        ${planes ? check("trails", "paths") : ""}
        ${live ? check("raw", "raw x") : ""}
      </div>
      <p class="summary" aria-live="polite"></p>
      <p class="keys">Keys (click the picture first): space: play or pause, ← →: time${heat ? ", ↑ ↓: row" : live ? ", ↑ ↓: N" : ""}${
        planes ? `, shift + arrows: ${model.free ? "move the noise point" : "select another start"}` : ""}${live ? ", R: raw x" : ""}.</p>`;
    this.canvas = this.box.querySelector("canvas");
    this.canvas.pidlearn = this;
    this.picture = new Picture(this.canvas, model);
    for (const element of this.box.querySelectorAll("[data-act], [data-view]")) {
      element.addEventListener("input", () => this.act(element));
      element.addEventListener("change", () => this.send());
      if (element.tagName === "BUTTON") element.addEventListener("click", () => this.play(!this.playing, true));
    }
    this.listen();
    this.label();
  }

  act(element) {
    const { act, view: name } = element.dataset;
    if (name) this.view[name] = element.checked;
    if (act === "time") {
      const u = Number(element.value);
      this.play(false); // this resets the slider, so its value is read before
      this.u = u;
    }
    if (act === "n") {
      this.view.n = STEPS[Number(element.value)];
      if (this.view.solver === "exact") this.view.solver = "euler";
    }
    if (act === "solver") this.view.solver = element.value;
    if (act === "handover" || act === "steps") this.view[act] = Number(element.value);
    this.label();
    this.redraw();
  }

  /** Pointer: drag the noise point in a plane; select a row of a heat map. */
  listen() {
    const { canvas } = this;
    const where = (event) => {
      const frame = canvas.getBoundingClientRect();
      return [event.clientX - frame.left, event.clientY - frame.top];
    };
    // A finger scrolls the page unless it grabs the noise point; a tap moves the point there.
    const holds = (panel, at) => {
      const held = panel >= 0 && this.model.panels[panel].type === "plane" && this.picture.probeAt(panel, this.view);
      return held && Math.hypot(at[0] - held[0], at[1] - held[1]) < GRASP;
    };
    const panelAt = ([px, py]) =>
      this.picture.boxes.findIndex((b) => px >= b.x && px < b.x + b.width && py >= b.y && py < b.y + b.height);
    let dragging = -1;
    canvas.addEventListener("pointerdown", (event) => {
      const at = where(event);
      const panel = panelAt(at);
      if (panel < 0 || this.model.panels[panel].type === "images") return;
      if (event.pointerType === "touch" && this.model.panels[panel].type === "plane" && !holds(panel, at)) return;
      dragging = panel;
      canvas.setPointerCapture(event.pointerId);
      this.move(panel, at);
    });
    canvas.addEventListener("pointermove", (event) => {
      const at = where(event);
      const panel = panelAt(at);
      if (dragging >= 0) this.move(dragging, at);
      else if (panel >= 0 && this.model.panels[panel].type === "heat" && event.pointerType === "mouse") {
        this.selectRow(panel, at);
        this.send();
      }
    });
    const release = () => {
      if (dragging >= 0) this.send();
      dragging = -1;
    };
    canvas.addEventListener(
      "touchstart",
      (event) => {
        const at = where(event.touches[0]);
        if (event.touches.length === 1 && holds(panelAt(at), at)) event.preventDefault();
      },
      { passive: false },
    );
    canvas.addEventListener("click", (event) => {
      const panel = panelAt(where(event));
      if (event.pointerType !== "touch" || panel < 0 || this.model.panels[panel].type !== "plane") return;
      this.move(panel, where(event));
      this.send();
    });
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  move(panel, [px, py]) {
    const box = this.picture.boxes[panel];
    if (this.model.panels[panel].type === "heat") {
      this.play(false);
      this.u = Math.min(this.model.last, Math.max(0, ((px - box.x) / box.width) * (this.model.last + 1) - 0.5));
      this.selectRow(panel, [px, py]);
      return;
    }
    const [x, y] = this.picture.lens(box).from(px, py);
    const s = this.picture.divisor(this.view, this.model.times[0]);
    this.setProbe([x * s, y * s]);
  }

  setProbe(probe) {
    const reach = this.model.free ? INSIDE * this.model.scale(this.model.times[0]) : Infinity;
    const inside = probe.map((v) => Math.min(reach, Math.max(-reach, v)));
    const snapped = this.model.free ? inside : [...this.start(this.model.nearest(probe))];
    this.view = { ...this.view, probe: snapped, row: null };
    this.label();
    this.redraw();
  }

  start(i) {
    return this.model.starts.slice(2 * i, 2 * i + 2);
  }

  selectRow(panel, [, py]) {
    const heat = this.model.panels[panel];
    const box = this.picture.boxes[panel];
    const rows = heat.values.shape[0];
    this.row(heat, Math.min(rows - 1, Math.max(0, Math.floor(((py - box.y) / box.height) * rows))));
  }

  row(heat, row) {
    this.view = { ...this.view, row, probe: [...this.start(heat.order[row])] };
    this.label();
    this.redraw();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // a shortcut of the browser
    const { view, model } = this;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const direction = arrows[event.key];
    const heat = model.panels.find((panel) => panel.type === "heat");
    if (event.key === " ") this.play(!this.playing, true);
    else if (event.key.toLowerCase() === "r" && model.mixture) view.raw = !view.raw;
    else if (event.key === "Home") this.u = 0;
    else if (event.key === "End") this.u = model.last;
    else if (direction && event.shiftKey && view.probe) {
      if (model.free) this.setProbe(view.probe.map((v, k) => v + 0.05 * model.scale(model.times[0]) * direction[k]));
      else {
        const next = (model.nearest(view.probe) + direction[0] + direction[1] + model.count) % model.count;
        this.setProbe([...this.start(next)]);
      }
    } else if (direction && direction[0]) {
      this.play(false);
      this.u = Math.min(model.last, Math.max(0, Math.round(this.u) + direction[0]));
    } else if (direction && heat) {
      const rows = heat.values.shape[0];
      const from = view.row ?? (direction[1] < 0 ? -1 : rows);
      this.row(heat, Math.min(rows - 1, Math.max(0, from - direction[1])));
    } else if (direction && model.mixture) {
      const i = STEPS.indexOf(nearestStep(view.n)) + direction[1];
      view.n = STEPS[Math.min(STEPS.length - 1, Math.max(0, i))];
      if (view.solver === "exact") view.solver = "euler";
    } else return;
    event.preventDefault();
    this.label();
    this.redraw();
    this.send();
  }

  play(on, byVisitor = false) {
    if (on && this.u >= this.model.last) this.u = 0;
    this.playing = on;
    this.before = null;
    this.rested = 0;
    if (byVisitor) this.send();
    this.label();
    this.redraw();
  }

  redraw() {
    this.pending ??= requestAnimationFrame((now) => {
      this.pending = null;
      this.frame(now);
    });
  }

  frame(now) {
    const width = this.box.clientWidth;
    if (!this.box.isConnected || width < 1) return;
    const { model } = this;
    if (this.playing) {
      const seconds = this.before === null ? 0 : Math.min(0.1, (now - this.before) / 1000);
      if (this.u < model.last) this.u = Math.min(model.last, this.u + (seconds / SECONDS) * model.last);
      else if ((this.rested += seconds) > REST) [this.u, this.rested] = [0, 0];
      this.before = now;
      this.showTime();
    }
    this.picture.layout(width);
    this.picture.draw(this.view, this.u, this.theme());
    this.drawn++;
    if (this.playing) this.redraw();
  }

  /** The colours of the surrounding page: Streamlit defines them as CSS variables, a plain page follows the system. */
  theme() {
    const paper = getComputedStyle(this.box).getPropertyValue("--st-background-color").trim();
    const dark = paper ? luminance(paper) < 0.4 : this.dark.matches;
    this.box.classList.toggle("dark", dark);
    return dark
      ? { ink: "#f4f4f4", paper: "#14181f", faint: "#9aa0a6", line: "#444", teacher: "#b9bec4" }
      : { ink: "#1a1a1a", paper: "#ffffff", faint: "#76797d", line: "#ccc", teacher: "#6b6f73" };
  }

  showTime() {
    const t = this.model.time(this.u);
    const slider = this.box.querySelector('[data-act="time"]');
    slider.value = this.u;
    slider.setAttribute("aria-valuetext", `t = ${number(t)}`);
    this.box.querySelector('[data-output="time"]').textContent = `t = ${number(t)}`;
  }

  /** Update all text: the controls, the summary and the description for screen readers. */
  label() {
    const { box, view, model, scene } = this;
    if (!this.canvas) return;
    box.querySelector('[data-act="play"]').textContent = this.playing ? "❚❚ Pause" : "▶ Play";
    this.showTime();
    const set = (act, value, text) => {
      const element = box.querySelector(`[data-act="${act}"]`);
      if (!element) return;
      element.value = value;
      const output = box.querySelector(`[data-output="${act}"]`);
      if (!output) return;
      output.textContent = text;
      element.setAttribute("aria-valuetext", text); // the slider's own value is an index
    };
    set("n", STEPS.indexOf(nearestStep(view.n)), view.solver === "exact" ? "–" : `${view.n} points`);
    set("solver", view.solver);
    set("handover", view.handover, `t = ${number(model.times[view.handover])}`);
    set("steps", view.steps, `${view.steps}`);
    for (const element of box.querySelectorAll("[data-view]")) {
      element.checked = view[element.dataset.view];
      // Both are drawn in rescaled coordinates only.
      element.disabled = view.raw && ["density", "flow"].includes(element.dataset.view);
    }
    const sentences = model.planes.map((panel) => this.sentence(panel)).filter(Boolean);
    const heat = model.panels.find((panel) => panel.type === "heat");
    if (heat && view.row !== null) sentences.push(`Row ${view.row + 1} of ${heat.values.shape[0]} is selected.`);
    const images = model.panels.find((panel) => panel.type === "images");
    if (images) {
      const rows = images.rows.map((row) => escape(row.title)).join("; ");
      sentences.push(`Rows from top to bottom: ${rows}. Shown at t = ${number(model.time(this.u))}.`);
    }
    const text = [scene.caption && escape(scene.caption), ...sentences].filter(Boolean).join(" ");
    const summary = box.querySelector(".summary");
    if (summary.innerHTML !== text) summary.innerHTML = text;
    this.canvas.setAttribute("aria-label", `${scene.title}. ${summary.textContent}`);
  }

  sentence(panel) {
    const { model, view } = this;
    const metrics = model.metrics(panel, view);
    const calls = view.solver === "heun" ? 2 * (view.n - 1) : view.n - 1;
    const teacher = view.solver === "exact" || !model.mixture ? "the exact solution" : `${SOLVERS[view.solver]}-${view.n}`;
    const parts = [];
    const who = panel.title ? escape(panel.title) : "Student";
    const [, k] = model.handover(panel, view);
    if (metrics.toTeacher !== null) {
      const cost = panel.handover ? ` (${1 + 2 * k} calls)` : " (1 call)";
      parts.push(`<b>${who}</b>${model.mixture ? cost : ""}: RMSE ${format(metrics.toTeacher)} to ${teacher}`);
      if (metrics.teacherToExact !== null) parts.push(`${format(metrics.toExact)} to the exact solution`);
      if (model.mixture && model.scene.modes) parts.push(`${metrics.wrong.size} of ${model.count} samples in a different mode than ${teacher}`);
    }
    let text = parts.join(", ");
    if (metrics.teacherToExact !== null && panel === model.planes[model.planes.length - 1]) {
      text += `. ${teacher} itself (${calls} calls): RMSE ${format(metrics.teacherToExact)} to the exact solution`;
    }
    return text && `${text}.`;
  }

  /** Pass the view to the callback, shortly after a gesture has ended. */
  send() {
    if (!this.onview) return;
    clearTimeout(this.sending);
    this.sending = setTimeout(() => {
      const { n, solver, raw, density, flow, trails, probe, handover, steps, row } = this.view;
      const rounded = probe && probe.map((v) => Number(v.toPrecision(5)));
      this.onview({
        n, solver, raw, density, flow, trails, handover, steps, row,
        probe: rounded,
        frame: Math.round(this.u),
        play: this.playing,
      });
    }, 250);
  }

  destroy() {
    this.playing = false;
    clearTimeout(this.sending);
    if (this.pending) cancelAnimationFrame(this.pending);
    this.resizer.disconnect();
    this.dark.removeEventListener("change", this.onscheme);
    this.box.remove();
  }
}

const nearestStep = (n) => STEPS.reduce((best, step) => (Math.abs(step - n) < Math.abs(best - n) ? step : best));

function format(v) {
  if (v >= 100 || !Number.isFinite(v)) return v.toPrecision(3);
  if (v === 0) return "below 0.0001"; // recorded trajectories are rounded
  return v < 0.001 && v > 0 ? v.toPrecision(2) : v.toFixed(v < 0.1 ? 4 : 3);
}

function escape(text) {
  return String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
}

function luminance(colour) {
  const hex = /^#([0-9a-f]{6})/i.exec(colour);
  const parts = hex
    ? [0, 2, 4].map((i) => parseInt(hex[1].slice(i, i + 2), 16))
    : (colour.match(/[\d.]+/g) ?? [255, 255, 255]).slice(0, 3).map(Number);
  return (0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]) / 255;
}

/** Show a scene in an element; onview, if given, is called with the view after each gesture. */
export function mount(root, scene, onview = null) {
  return new Viewer(root, scene, onview);
}

const mounted = new WeakMap();

/** The Streamlit component: `data` is the scene, and its state `view` is the view that the visitor has chosen. */
export default function component({ data, parentElement, setStateValue }) {
  if (!data) return;
  const onview = (view) => setStateValue("view", view);
  const existing = mounted.get(parentElement);
  if (existing?.box.isConnected) {
    existing.onview = onview;
    existing.show(data);
  } else mounted.set(parentElement, mount(parentElement, data, onview));
  return () => {
    const viewer = mounted.get(parentElement);
    if (viewer && !viewer.box.isConnected) viewer.destroy();
  };
}
