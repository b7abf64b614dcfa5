// A scene as numbers: the positions of teacher and students at any time, and their errors. Nothing here draws.
//
// A point is drawn at y = x / s(t) with s = sqrt(sigma_data^2 + t^2), which gives noise and data the same scale; an ODE
// other than a diffusion has s = 1.

import { Path, decode, karras, rmse } from "./numerics.js";
import { Student } from "./student.js";
import { Mixture, solve } from "./teacher.js";

const TRAILS = { diffusion: 20, other: 6 }; // trajectories drawn behind the points; those of other ODEs wind
const FINE = 500; // Heun grid points of a single trajectory that stands in for the exact one

/** A scene with its arrays decoded. Positions of teacher and students are computed when first needed, and cached. */
export class Model {
  constructor(scene) {
    this.scene = scene;
    this.isDiffusion = scene.sigma_data !== null;
    this.times = scene.times;
    this.last = scene.times.length - 1;
    this.starts = scene.starts ? Float64Array.from(decode(scene.starts).values) : new Float64Array(0);
    this.count = this.starts.length / 2;
    this.mixture = scene.mixture ? new Mixture(scene.mixture) : null;
    this.exact = scene.exact ? this.recorded(scene.exact) : null;
    this.trails = Math.min(this.isDiffusion ? TRAILS.diffusion : TRAILS.other, this.count);
    this.panels = scene.panels.map((panel) => this.prepare(panel));
    this.solved = new Map();
  }

  /** s(t), the scale of x at time t. */
  scale(t) {
    return this.isDiffusion ? Math.hypot(this.scene.sigma_data, t) : 1;
  }

  /** The scale that x is divided by before it is drawn: s(t), or in the raw view that of the noise at every t. */
  divisor(view, t) {
    return this.scale(view.raw ? this.times[0] : t);
  }

  /** The time at position u, a fractional frame number: log-linear for a diffusion, linear for other ODEs. */
  time(u) {
    const i = Math.min(this.last - 1, Math.floor(u));
    const [a, b] = [this.times[i], this.times[i + 1]];
    return this.isDiffusion ? a * (b / a) ** (u - i) : a + (u - i) * (b - a);
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

  get heat() {
    return this.panels.find((panel) => panel.type === "heat");
  }

  start(i) {
    return this.starts.slice(2 * i, 2 * i + 2);
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
        panel.continued = { key, path: this.continued(panel.student.at(panel.encoded, tStar), tStar, k) };
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

  /** The time at which the teacher takes over from the student, and its number of steps from there; 0 for none. */
  handover(panel, view) {
    return panel.handover ? [this.times[view.handover], view.steps] : [0, 0];
  }

  /** The teacher's trajectories from x at time t: k steps of Heun's method. */
  continued(x, t, k) {
    return solve(this.mixture, x, karras(k + 1, [t, this.scene.span[1]], this.scene.rho), "heun");
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
    const after = k && this.continued(panel.student.at(encoded, tStar), tStar, k);
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
