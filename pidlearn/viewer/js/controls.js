// The controls below the picture: their HTML, and what they show of a view.

import { LEGEND } from "./style.js";
import { SOLVERS, escapeHtml, number, summary, timeText } from "./words.js";

const STEPS = [2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 25, 35, 50, 80, 120, 180, 250];
const HANDOVER_STEPS = 16;

/** The index of the slider's position that is nearest to n. */
export function nearestStep(n) {
  return STEPS.reduce((best, step, i) => (Math.abs(step - n) < Math.abs(STEPS[best] - n) ? i : best), 0);
}

/** Select position i of the slider. The exact solution has no grid points, so Euler's method replaces it. */
export function selectStep(view, i) {
  view.n = STEPS[Math.min(STEPS.length - 1, Math.max(0, i))];
  if (view.solver === "exact") view.solver = "euler";
}

/** Legend, canvas, controls, summary and keys, as HTML. */
export function markup(model, view) {
  const { scene } = model;
  const live = Boolean(model.mixture);
  const planes = model.planes.length > 0;
  const legend = [
    ["student", scene.names?.student ?? "student, one call", planes],
    ["teacher", scene.names?.teacher ?? "teacher", planes],
    ["wrong", "student ends in a different mode than the teacher", planes && live && scene.modes],
    ["probe", model.free ? "drag this noise point" : "select a start", planes && model.count],
  ];
  const svg = (mark) => `<svg viewBox="0 0 16 16" aria-hidden="true">${LEGEND[mark]}</svg>`;
  const marks = legend
    .filter(([, , shown]) => shown)
    .map(([mark, text]) => `<span>${svg(mark)}${escapeHtml(text)}</span>`);
  const check = (name, text) =>
    `<label><input type="checkbox" data-view="${name}" ${view[name] ? "checked" : ""}>${text}</label>`;
  const solvers = Object.entries(SOLVERS).filter(([name]) => name !== "exact" || model.exact);
  const options = solvers.map(
    ([name, text]) => `<option value="${name}" ${view.solver === name ? "selected" : ""}>${text}</option>`,
  );
  const handing = model.planes.some((panel) => panel.handover);
  return `
    <div class="legend">${marks.join("")}</div>
    <canvas tabindex="0" role="img"></canvas>
    <div class="row">
      <button type="button" data-act="play"></button>
      <label class="wide">${escapeHtml(scene.names?.time ?? "time")} <input type="range" data-act="time" min="0"
        max="${model.last}" step="any" aria-label="${escapeHtml(scene.names?.time ?? "time along the trajectory")}"><output aria-live="off" data-output="time"></output></label>
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
    <p class="keys">Keys (click the picture first): space: play or pause, ← →: time${model.heat ? ", ↑ ↓: row" : live ? ", ↑ ↓: N" : ""}${
      planes ? `, shift + arrows: ${model.free ? "move the noise point" : "select another start"}` : ""}${live ? ", R: raw x" : ""}.</p>`;
}

export function showTime(box, model, t) {
  const text = timeText(model, t);
  box.querySelector('[data-act="time"]').setAttribute("aria-valuetext", text);
  box.querySelector('[data-output="time"]').textContent = text;
}

/** Show the view in all controls but the time, in the summary and in the description for screen readers. */
export function showView(box, model, view, u) {
  const set = (act, value, text) => {
    const element = box.querySelector(`[data-act="${act}"]`);
    if (!element) return;
    element.value = value;
    const output = box.querySelector(`[data-output="${act}"]`);
    if (!output) return;
    output.textContent = text;
    element.setAttribute("aria-valuetext", text); // the slider's own value is an index
  };
  set("n", nearestStep(view.n), view.solver === "exact" ? "–" : `${view.n} points`);
  set("solver", view.solver);
  set("handover", view.handover, `t = ${number(model.times[view.handover])}`);
  set("steps", view.steps, `${view.steps}`);
  for (const element of box.querySelectorAll("[data-view]")) {
    element.checked = view[element.dataset.view];
    // Both are drawn in rescaled coordinates only.
    element.disabled = view.raw && ["density", "flow"].includes(element.dataset.view);
  }
  const text = summary(model, view, u);
  const shown = box.querySelector(".summary");
  if (shown.innerHTML !== text) shown.innerHTML = text;
  box.querySelector("canvas").setAttribute("aria-label", `${model.scene.title}. ${shown.textContent}`);
}
