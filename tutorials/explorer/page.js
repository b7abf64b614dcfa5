// The page: what is set, what is shown, and the worker that trains.

import { drawChart, worthOf } from "./chart.js";
import { makeKernel } from "./kernel.js";
import { Pad } from "./pad.js";
import { huesOf, noiseOf, Panel } from "./panel.js";
import { noise, Random } from "./random.js";
import { Student } from "./student.js";
import { euler, karrasGrid, pathAt, T } from "./teacher.js";
import { prepare, themeOf } from "./theme.js";
import { callsOf, fromHash, GRIDS, MAX_POINTS, mixtureOf, quantised, STEPS, toHash, toPython } from "./view.js";

const SAMPLES = 304; // shown; a multiple of 4
const PREVIEW = 24; // grid points while a stroke is drawn
const PATH = karrasGrid(64); // times at which the student's path of one noise is drawn
const JOURNEY = 4000; // milliseconds from noise to data
const REST = 1500; // at the data, before the next journey
const LABEL = 100; // between two changes of the text of the time: layout costs more than a picture
const CALM = 500; // milliseconds between two pictures where motion is not wanted
const TRAINING_SEED = 0;
const MOMENTS = karrasGrid(1001); // the times of the slider, which moves along EDM's grid
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

const timeOf = (share) => MOMENTS[Math.round(1000 * share)];
const digits = (value) => (value < 0.0995 ? value.toFixed(3) : value.toFixed(2));
const clock = (t) => (t < 0.01 ? t.toFixed(3) : t.toPrecision(2));

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
      trainedAt: null, // N of the student that is shown
      job: 0, // the worker's answers to earlier messages no longer count
      visible: false,
      playing: false,
      drawn: 0, // pictures so far
      stale: {}, // whether chart and pad are to be drawn again
      frame: 0,
    });
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.#receive(data);
    this.pad = new Pad(this.#find(".pad"), (points, done) => this.#drawData(points, done));
    const moved = (point) => this.setNoise(point);
    this.panels = ["teacher", "student"].map((name) => new Panel(this.#find(`canvas.${name}`), moved));
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
    if ("n" in changes || "steps" in changes) this.#stopWorker();
    if ("n" in changes) {
      Object.assign(this.view, { calls: null, distilled: false });
      this.rulers = [];
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
    Object.assign(this, { training: true, trainedAt: n, curve: [], progress: null });
    this.view.distilled = true;
    this.worker.postMessage({ ...this.#message("distil"), steps, seed: TRAINING_SEED, simd: this.simd });
    this.#show("result", "");
    this.#remember();
    if (calm.matches) this.seek(1);
    else this.play(0);
  }

  stop() {
    this.#stopWorker();
    this.view.distilled = false;
    this.#show("result", "Stopped. The student keeps what it has learned so far.");
    this.#remember();
    this.#label();
  }

  /** Move from noise to data, from where the time is or from `from`. */
  play(from = this.view.time < 1 ? this.view.time : 0) {
    this.playing = true;
    this.view.time = from;
    this.began = performance.now() - from * JOURNEY;
    this.#label();
    this.wake();
  }

  seek(time) {
    this.playing = false;
    this.view.time = time;
    this.#remember();
    this.#label();
    this.wake();
  }

  /** Draw in the next frame, while the page is in view; the panels, and what is stale by now. */
  wake(stale = { chart: true, pad: true }) {
    Object.assign(this.stale, stale);
    if (!this.frame && this.visible) this.frame = requestAnimationFrame((now) => this.#tick(now));
  }

  #tick(now) {
    this.frame = 0;
    if (this.playing) {
      const elapsed = now - this.began;
      this.view.time = Math.min(1, Math.max(0, elapsed / JOURNEY));
      if (elapsed > JOURNEY + REST && this.training) this.began = now;
      else if (elapsed > JOURNEY && !this.training) this.seek(1);
      if (now - this.labelled > LABEL) this.#labelTime();
    }
    this.#draw();
    this.drawn++;
    if (this.playing) this.wake({});
  }

  #draw() {
    this.theme ??= themeOf(this.root);
    const { theme, view, mixture, student, teacher, limited } = this;
    this.lastPicture = performance.now();
    // Time moves the panels alone, and training the chart.
    if (this.stale.chart) {
      drawChart(this.#find(".chart"), { curve: this.curve, steps: view.steps, rulers: this.rulers }, theme);
    }
    if (this.stale.pad && mixture) this.pad.draw(mixture, theme);
    this.stale = {};
    if (!mixture) {
      for (const canvas of this.root.querySelectorAll(".panels canvas")) prepare(canvas);
      return;
    }
    const t = timeOf(view.time);
    const target = pathAt(teacher.path, teacher.grid, t);
    const point = noiseOf(view.noise);
    const pathOf = ({ grid }, colour, width) => ({ x: euler(mixture, point, grid), times: [...grid], colour, width });
    const whole = pathOf(teacher, theme.teacher, 4);
    const single = { x: this.probe.path(...point, PATH), times: [...PATH], colour: theme.student, width: 2 };
    const shared = { mixture, t, target, hues: this.hues, noise: view.noise };
    const fewer = limited === teacher ? [] : [pathOf(limited, theme.ink, 2)];
    this.panels[0].draw({ ...shared, x: pathAt(limited.path, limited.grid, t), paths: [whole, ...fewer] }, theme);
    this.panels[1].draw({ ...shared, x: student.at(this.z, t), paths: [whole, single] }, theme);
  }

  #drawData(points, done) {
    if (points) {
      this.playing = false;
      Object.assign(this.view, { preset: null, points, time: 1, distilled: false });
      // A whole solution would lag behind the pen.
      if (done || !this.student) this.#reset();
      else this.#solve(PREVIEW);
      this.#remember();
    }
    this.wake();
  }

  #drawNoise() {
    this.z = noise(SAMPLES, T, this.view.seed + 1);
    this.hues = huesOf(this.z);
  }

  /** A distribution that is new, with a student that has learned nothing. */
  #reset() {
    const { preset, points } = this.view;
    this.#stopWorker();
    if (this.pad.points.length !== points.length) this.pad.load(points);
    Object.assign(this, { curve: [], rulers: [], progress: null, trainedAt: null, student: null });
    this.#show("result", preset || points.length ? "" : "Draw a distribution, or take a preset.");
    this.#drawNoise();
    this.#solve(this.view.n);
    if (!this.mixture) return;
    const build = (rows) => new Student(makeKernel(this.simd), this.mixture.std, rows, new Random(TRAINING_SEED));
    this.student = build(SAMPLES);
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
    this.#label();
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
    this.#label();
    const waits = calm.matches && this.training && performance.now() - this.lastPicture < CALM;
    if (!waits) this.wake({ chart: true });
  }

  #follow(report) {
    const { step, error, weights, seconds } = report;
    this.progress = report;
    if (this.curve.at(-1)?.error !== error) this.curve.push({ step, error });
    for (const student of [this.student, this.probe]) student.network.weights.set(weights);
    if (step < this.view.steps) return;
    this.training = false;
    this.#show(
      "result",
      `Done in ${seconds.toFixed(1)} seconds: one call of the student is worth ${this.#worth()} of the teacher ` +
        `(its error is ${digits(error)} of the spread).`,
    );
  }

  /** The teacher's calls that come as close as the student's one. */
  #worth() {
    const calls = worthOf(this.progress.error, this.rulers);
    if (calls) return `${calls} call${calls === 1 ? "" : "s"}`;
    return this.progress.error < this.rulers.at(-1)[1] ? `more than ${this.rulers.at(-1)[0]} calls` : "no call";
  }

  #remember() {
    clearTimeout(this.writing);
    // Browsers limit how often the address may change.
    this.writing = setTimeout(() => history.replaceState(null, "", `#${toHash(this.view)}`), 250);
  }

  #find(selector) {
    return this.root.querySelector(selector);
  }

  #control(name) {
    return this.#find(`[data-act="${name}"]`);
  }

  #show(name, text) {
    const element = this.#find(`[data-show="${name}"]`);
    if (element.textContent !== text) element.textContent = text;
  }

  #labelTime() {
    const { time } = this.view;
    this.labelled = performance.now();
    const slider = this.#control("time");
    slider.value = Math.round(100 * time);
    slider.setAttribute("aria-valuetext", `t = ${clock(timeOf(time))}`);
    this.#show("time", `t = ${clock(timeOf(time))}`);
  }

  /** Bring all texts and controls in line with the state. */
  #label() {
    const { view, training, progress, rulers, trainedAt } = this;
    const { n, preset, points } = view;
    const calls = view.calls ?? n - 1;
    for (const button of this.root.querySelectorAll("[data-preset]")) {
      button.setAttribute("aria-pressed", button.dataset.preset === preset);
    }
    this.#show("points", preset ? "Draw to replace it." : `${points.length} of ${MAX_POINTS} points`);
    this.#control("undo").disabled = !points.length;
    const options = callsOf(n);
    this.#slide("calls", options.indexOf(calls), options.length - 1, `${calls} calls`, String(calls));
    this.#slide("n", GRIDS.indexOf(n), GRIDS.length - 1, `${n} grid points`, String(n));
    this.#control("steps").value = view.steps;
    const error = rulers.find(([k]) => k === calls)?.[1];
    const whole = calls === n - 1 ? ": the student's target" : error ? `: RMSE / spread ${digits(error)}` : "";
    this.#show("teacher", `${calls} call${calls === 1 ? "" : "s"} per sample${whole}`);
    const stale = trainedAt !== null && trainedAt !== n;
    this.#show(
      "student",
      stale
        ? `1 call per sample, distilled at N = ${trainedAt}`
        : `1 call per sample${progress ? `: RMSE / spread ${digits(progress.error)}` : ", not trained yet"}`,
    );
    const button = this.#control("distil");
    button.disabled = !this.mixture;
    button.classList.toggle("running", training);
    button.textContent = training ? "Stop" : stale ? `Distil at N = ${n}` : progress ? "Distil again" : "Distil";
    this.#control("play").textContent = this.playing ? "Pause" : "Play";
    this.#show("error", progress ? digits(progress.error) : "–");
    this.#show("worth", progress && rulers.length ? this.#worth() : "–");
    this.#show("step", progress ? `${progress.step} of ${view.steps}` : "–");
    this.#show("rate", progress?.step ? (progress.step / progress.seconds).toFixed(0) : "–");
    this.#show("seconds", progress ? progress.seconds.toFixed(1) : "–");
    this.#show("python", toPython(view));
    this.#labelTime();
  }

  #slide(name, value, max, spoken, shown) {
    const slider = this.#control(name);
    slider.max = max;
    slider.value = value;
    slider.setAttribute("aria-valuetext", spoken);
    this.#show(name, shown);
  }

  #connect() {
    const on = (name, type, listener) => this.#control(name).addEventListener(type, listener);
    for (const button of this.root.querySelectorAll("[data-preset]")) {
      button.addEventListener("click", () => this.setData({ preset: button.dataset.preset, points: [] }));
    }
    on("undo", "click", () => this.pad.undo());
    on("clear", "click", () => this.setData({ preset: null, points: [] }));
    on("calls", "input", ({ target }) => this.set({ calls: callsOf(this.view.n)[target.value] }));
    on("n", "input", ({ target }) => this.set({ n: GRIDS[target.value] }));
    on("time", "input", ({ target }) => this.seek(target.value / 100));
    on("seed", "click", () => this.set({ seed: this.view.seed + 1 }));
    on("play", "click", () => (this.playing ? this.seek(this.view.time) : this.play()));
    on("distil", "click", () => (this.training ? this.stop() : this.distil()));
    on("steps", "change", ({ target }) => this.set({ steps: Number(target.value) }));
    on("copy", "click", async () => {
      await navigator.clipboard.writeText(toPython(this.view));
      this.#show("result", "Copied.");
    });
    this.#control("steps").append(...STEPS.map((steps) => new Option(steps, steps)));
    window.addEventListener("hashchange", () => this.restore());
    const recolour = () => {
      this.theme = null;
      this.wake();
    };
    new MutationObserver(recolour).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
    new ResizeObserver(() => this.wake()).observe(this.root);
    new IntersectionObserver(([entry]) => this.#seen(entry.isIntersecting)).observe(this.#find(".panels"));
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
