// The page: what is set, what is shown, and the worker that trains.

import { drawChart } from "./chart.js";
import { Controls, timeOf } from "./controls.js";
import { Density } from "./density.js";
import { makeKernel } from "./kernel.js";
import { Pad } from "./pad.js";
import { huesOf, noiseOf, Panel, RANGE } from "./panel.js";
import { noise, Random } from "./random.js";
import { Student } from "./student.js";
import { euler, karrasGrid, pathAt, T } from "./teacher.js";
import { prepare, themeOf } from "./theme.js";
import { callsOf, fromHash, GRIDS, mixtureOf, quantised, toHash, toPython } from "./view.js";

const SAMPLES = 256; // shown; a multiple of 4
const PREVIEW = 24; // grid points while a stroke is drawn
const PATH = karrasGrid(64); // times at which the student's path of one noise is drawn
const JOURNEY = 4000; // milliseconds from noise to data
const REST = 1500; // at the data, before the next journey
const LABEL = 100; // between two changes of the text of the time: layout costs more than a picture
const CALM = 500; // milliseconds between two pictures where motion is not wanted
const TRAINING_SEED = 0;
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

class Explorer {
  constructor(root) {
    Object.assign(this, {
      root,
      simd: makeKernel().simd,
      view: fromHash(""),
      student: null, // of the samples that are shown; null without a distribution
      progress: null, // the worker's last report
      curve: [],
      rulers: [], // [calls, error] of the teacher
      training: false,
      trained: null, // {n, steps} of the student that is shown
      job: 0, // the worker's answers to earlier messages no longer count
      visible: false,
      playing: false,
      drawn: 0, // pictures so far
      stale: {}, // which of chart, pad and paths have to be drawn again
      frame: 0,
      labelled: 0,
      controls: new Controls(root),
      density: new Density(),
    });
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.#receive(data);
    this.pad = new Pad(root.querySelector(".pad"), (points, done) => this.#drawData(points, done));
    const moved = (point) => this.setNoise(point);
    this.panels = ["teacher", "student"].map((name) => new Panel(root.querySelector(`canvas.${name}`), moved));
    this.#connect();
  }

  /** Take the view from the address; a student that it had is trained again, with the same seed. */
  restore() {
    this.view = fromHash(location.hash);
    this.#reset();
    if (this.view.distilled && this.mixture) this.distil();
    else if (this.view.time === 0 && calm.matches) this.seek(1);
    else if (this.view.time === 0) this.play();
  }

  /** Change the distribution. Its student is gone. */
  setData(data) {
    Object.assign(this.view, data, { distilled: false });
    this.#reset();
    this.#remember();
    if (calm.matches) this.seek(1);
    else this.play();
  }

  /** Change settings that leave the distribution as it is: n, calls, steps or seed. */
  set(changes) {
    Object.assign(this.view, changes);
    if ("seed" in changes) this.#drawNoise();
    if ("n" in changes) {
      this.view.calls = null;
      Object.assign(this, { rulers: [], curve: [], progress: null }); // they were of another teacher
    }
    if ("n" in changes || "steps" in changes) {
      this.#stopWorker();
      this.view.distilled = false;
      this.#compareCalls();
    }
    this.#solve(this.view.n);
    this.#remember();
  }

  /** Move the noise point, in units of T. */
  setNoise(point) {
    this.view.noise = point.map((v) => quantised(v, 3));
    this.#remember();
    this.wake();
  }

  distil() {
    const { steps, n } = this.view;
    this.#stopWorker();
    Object.assign(this, { training: true, trained: { n, steps }, curve: [], progress: null });
    this.view.distilled = true;
    this.worker.postMessage({ ...this.#message("distil"), steps, seed: TRAINING_SEED, simd: this.simd });
    this.controls.show("result", "");
    this.#remember();
    if (calm.matches) this.seek(1);
    else this.play(0);
  }

  stop() {
    this.#stopWorker();
    this.#compareCalls();
    this.view.distilled = false;
    this.controls.show("result", "Stopped. The student keeps what it has learned so far.");
    this.#remember();
    this.controls.update(this);
  }

  /** Move from noise to data, from where the time is or from `from`. */
  play(from = this.view.time < 1 ? this.view.time : 0) {
    this.playing = true;
    this.view.time = from;
    this.began = performance.now() - from * JOURNEY;
    this.controls.update(this);
    this.wake();
  }

  seek(time) {
    this.view.time = time;
    this.#rest();
    this.#remember();
    this.wake();
  }

  #rest() {
    this.playing = false;
    this.controls.update(this);
  }

  /** Draw the panels and all that is stale in the next frame, while the page is in view. */
  wake(stale = { chart: true, pad: true, paths: true }) {
    Object.assign(this.stale, stale);
    if (!this.frame && this.visible) this.frame = requestAnimationFrame((now) => this.#tick(now));
  }

  #tick(now) {
    this.frame = 0;
    if (this.playing) {
      const elapsed = now - this.began;
      this.view.time = Math.min(1, Math.max(0, elapsed / JOURNEY));
      if (elapsed > JOURNEY + REST && this.training) this.began = now;
      else if (elapsed > JOURNEY && !this.training) this.#rest();
      if (now - this.labelled > LABEL) {
        this.labelled = now;
        this.controls.time(this.view.time);
      }
    }
    this.#draw();
    this.drawn++;
    if (this.playing) this.wake({});
  }

  #draw() {
    this.theme ??= themeOf(this.root);
    const { theme, view, mixture, student, teacher, limited } = this;
    this.lastPicture = performance.now();
    // Time moves the samples alone, training also the chart and a path.
    if (this.stale.chart) {
      drawChart(this.root.querySelector(".chart"), { curve: this.curve, steps: (this.trained ?? view).steps, rulers: this.rulers }, theme);
    }
    if (this.stale.pad && mixture) this.pad.draw(mixture, theme);
    if (!mixture) {
      for (const canvas of this.root.querySelectorAll(".panels canvas")) prepare(canvas);
      return;
    }
    if (this.stale.paths) this.#findPaths();
    this.stale = {};
    const t = timeOf(view.time);
    const scaleAt = (time) => Math.hypot(mixture.std, time);
    const density = this.density.update(mixture, t, scaleAt(t), RANGE, theme.density);
    const target = pathAt(teacher.path, teacher.grid, t);
    const shared = { density, scaleAt, t, target, hues: this.hues, noise: view.noise };
    const fewer = limited === teacher ? target : pathAt(limited.path, limited.grid, t);
    this.panels[0].draw({ ...shared, x: fewer, paths: this.paths.teacher }, theme);
    this.panels[1].draw({ ...shared, x: student.evaluate(t), paths: this.paths.student }, theme);
  }

  /** The paths of the noise point: the teacher's, with all calls and those that are set, and the student's. */
  #findPaths() {
    const { theme, teacher, limited } = this;
    const point = noiseOf(this.view.noise);
    const pathOf = ({ grid }, colour, width) => {
      const x = euler(this.mixture, point, grid);
      const stride = Math.ceil(grid.length / PATH.length); // more corners are not seen
      const kept = [...grid.keys()].filter((i) => i % stride === 0 || i === grid.length - 1);
      return { x: kept.flatMap((i) => [x[2 * i], x[2 * i + 1]]), times: kept.map((i) => grid[i]), colour, width };
    };
    const whole = pathOf(teacher, theme.teacher, 4);
    const single = { x: this.probe.path(...point, PATH), times: [...PATH], colour: theme.student, width: 2 };
    this.paths = {
      teacher: limited === teacher ? [whole] : [whole, pathOf(limited, theme.ink, 2)],
      student: [whole, single],
    };
  }

  #drawData(points, done) {
    if (points) {
      this.playing = false;
      Object.assign(this.view, { preset: null, points, time: 1, distilled: false });
      // A whole solution would lag behind the pen.
      if (done || !this.student || this.trained) this.#reset();
      else this.#solve(PREVIEW);
      this.#remember();
    }
    this.wake(); // else only the brush has moved
  }

  #drawNoise() {
    this.z = noise(SAMPLES, T, this.view.seed + 1);
    this.hues = huesOf(this.z);
    this.student?.encode(this.z);
  }

  /** A distribution that is new, with a student that has learned nothing. */
  #reset() {
    const { preset, points } = this.view;
    this.#stopWorker();
    if (this.pad.points.length !== points.length) this.pad.load(points);
    Object.assign(this, { curve: [], rulers: [], progress: null, trained: null, student: null });
    this.controls.show("result", preset || points.length ? "" : "Draw a distribution, or take a preset.");
    this.#drawNoise();
    this.#solve(this.view.n);
    if (!this.mixture) return;
    const build = (rows) => new Student(makeKernel(this.simd), this.mixture.std, rows, new Random(TRAINING_SEED));
    this.student = build(SAMPLES);
    this.student.encode(this.z);
    this.probe = build(4 * PATH.length);
    this.#compareCalls();
  }

  /** Solve the teacher's ODE for the samples that are shown: on n points, and with the calls that are set. */
  #solve(n) {
    const { preset, points, calls } = this.view;
    this.mixture = preset || points.length ? mixtureOf(this.view) : null;
    if (this.mixture) {
      const solution = (count) => {
        const grid = karrasGrid(count);
        return { grid, path: euler(this.mixture, this.z, grid) };
      };
      this.teacher = solution(n);
      this.limited = calls === null || calls === n - 1 ? this.teacher : solution(calls + 1);
    }
    this.controls.update(this);
    this.wake();
  }

  #message(type) {
    const { preset, points, n } = this.view;
    return { type, id: ++this.job, preset, points, n };
  }

  #compareCalls() {
    if (this.mixture) this.worker.postMessage(this.#message("teacher"));
  }

  #stopWorker() {
    this.worker.postMessage({ type: "stop", id: ++this.job });
    this.training = false;
  }

  #receive({ id, calls, ...report }) {
    if (id !== this.job) return;
    if (calls) this.rulers = calls;
    else this.#follow(report);
    this.controls.update(this);
    const waits = calm.matches && this.training && performance.now() - this.lastPicture < CALM;
    if (!waits) this.wake({ chart: true, paths: true });
  }

  #follow(report) {
    const { step, error, weights, seconds } = report;
    this.progress = report;
    if (this.curve.at(-1)?.error !== error) this.curve.push({ step, error });
    for (const student of [this.student, this.probe]) student.network.weights.set(weights);
    if (step < this.trained.steps) return;
    this.training = false;
    this.controls.announce(this);
  }

  #remember() {
    clearTimeout(this.writing);
    // Browsers limit how often the address may change.
    this.writing = setTimeout(() => {
      const hash = toHash(this.view);
      history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    }, 250);
  }

  #connect() {
    const { controls } = this;
    for (const button of controls.presets) {
      button.addEventListener("click", () => this.setData({ preset: button.dataset.preset, points: [] }));
    }
    controls.on("undo", "click", () => this.pad.undo());
    controls.on("clear", "click", () => this.setData({ preset: null, points: [] }));
    controls.on("calls", "input", ({ target }) => this.set({ calls: callsOf(this.view.n)[target.value] }));
    controls.on("n", "input", ({ target }) => this.set({ n: GRIDS[target.value] }));
    controls.on("time", "input", ({ target }) => this.seek(target.value / 100));
    controls.on("seed", "click", () => this.set({ seed: this.view.seed + 1 }));
    controls.on("play", "click", () => (this.playing ? this.seek(this.view.time) : this.play()));
    controls.on("distil", "click", () => (this.training ? this.stop() : this.distil()));
    controls.on("steps", "change", ({ target }) => this.set({ steps: Number(target.value) }));
    controls.on("copy", "click", async () => {
      try {
        await navigator.clipboard.writeText(toPython(this.view));
        this.controls.show("result", "The code is copied.");
      } catch {
        this.controls.show("result", "The browser does not allow a page to copy: select the code instead.");
      }
    });
    // Other links within the page, such as that of its heading, hold no view.
    window.addEventListener("hashchange", () => location.hash.includes("=") && this.restore());
    const recolour = () => {
      this.theme = null;
      this.wake();
    };
    new MutationObserver(recolour).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
    new ResizeObserver(() => this.wake()).observe(this.root);
    new IntersectionObserver(([entry]) => this.#seen(entry.isIntersecting)).observe(this.root);
  }

  /** Everything starts, and moves, only while it is in view. */
  #seen(visible) {
    this.visible = visible;
    if (visible && !this.z) this.restore();
    this.wake();
  }
}

const root = document.querySelector(".explorer");
root.explorer = new Explorer(root); // for the tests, and for the console
