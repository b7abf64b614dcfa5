// The page's controls and texts, which follow its state.

import { worthOf } from "./chart.js";
import { karrasGrid } from "./teacher.js";
import { callsOf, GRIDS, MAX_POINTS, STEPS, toPython } from "./view.js";

const MOMENTS = karrasGrid(1001); // the times of the slider, which moves along EDM's grid

/** The time t of a slider's share, from 0 to 1. */
export const timeOf = (share) => MOMENTS[Math.round(1000 * share)];

const digits = (value) => (value < 0.0995 ? value.toFixed(3) : value.toFixed(2));
const plural = (calls) => `${calls} call${calls === 1 ? "" : "s"}`;

export class Controls {
  constructor(root) {
    this.root = root;
    this.presets = [...root.querySelectorAll("[data-preset]")];
    this.get("steps").append(...STEPS.map((steps) => new Option(steps, steps)));
  }

  get(name) {
    return this.root.querySelector(`[data-act="${name}"]`);
  }

  on(name, type, listener) {
    this.get(name).addEventListener(type, listener);
  }

  show(name, text) {
    const element = this.root.querySelector(`[data-show="${name}"]`);
    if (element.textContent !== text) element.textContent = text;
  }

  #slide(name, value, max, spoken, shown) {
    const slider = this.get(name);
    slider.max = max;
    slider.value = value;
    slider.setAttribute("aria-valuetext", spoken);
    this.show(name, shown);
  }

  time(share) {
    const t = timeOf(share);
    const text = `t = ${t < 0.01 ? t.toFixed(3) : t.toPrecision(2)}`;
    this.#slide("time", Math.round(100 * share), 100, text, text);
  }

  /** @param {Explorer} state */
  update({ view, mixture, training, trained, progress, rulers, playing }) {
    const { n, preset, points } = view;
    const calls = view.calls ?? n - 1;
    for (const button of this.presets) button.setAttribute("aria-pressed", button.dataset.preset === preset);
    this.show("points", preset ? "Draw to replace it." : `${points.length} of ${MAX_POINTS} points`);
    this.get("undo").disabled = !points.length;
    const options = callsOf(n);
    this.#slide("calls", options.indexOf(calls), options.length - 1, plural(calls), String(calls));
    this.#slide("n", GRIDS.indexOf(n), GRIDS.length - 1, `${n} grid points`, String(n));
    this.get("steps").value = view.steps;

    const fewer = rulers.find(([k]) => k === calls);
    const error = fewer ? `: RMSE / spread ${digits(fewer[1])}` : "";
    this.show("teacher", `${plural(calls)} per sample${calls === n - 1 ? ": the student's target" : error}`);
    const elsewhere = trained !== null && trained.n !== n;
    const learned = progress ? `: RMSE / spread ${digits(progress.error)}` : ", not trained yet";
    this.show("student", `1 call per sample${elsewhere ? `, distilled at N = ${trained.n}` : learned}`);
    const button = this.get("distil");
    button.disabled = !mixture;
    button.classList.toggle("running", training);
    button.textContent = training ? "Stop" : elsewhere ? `Distil at N = ${n}` : progress ? "Distil again" : "Distil";
    this.get("play").textContent = playing ? "Pause" : "Play";

    this.show("error", progress ? digits(progress.error) : "–");
    this.show("worth", progress && rulers.length ? worth(progress.error, rulers) : "–");
    this.show("step", progress ? `${progress.step} of ${trained.steps}` : "–");
    this.show("rate", progress?.step ? (progress.step / progress.seconds).toFixed(0) : "–");
    this.show("seconds", progress ? progress.seconds.toFixed(1) : "–");
    this.show("python", toPython(view));
    this.time(view.time);
  }

  /** Announce a student that is trained. */
  announce({ progress: { error, seconds }, rulers }) {
    this.show(
      "result",
      `Done in ${seconds.toFixed(1)} seconds: one call of the student is worth ${worth(error, rulers)} of the teacher ` +
        `(its error is ${digits(error)} of the spread).`,
    );
  }
}

/** The teacher's calls that come as close as the student's one. */
function worth(error, rulers) {
  const calls = worthOf(error, rulers);
  if (calls) return plural(calls);
  const [most, least] = rulers.at(-1);
  return error < least ? `more than ${plural(most)}` : "no call";
}
