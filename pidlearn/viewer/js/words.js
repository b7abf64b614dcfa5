// What the viewer says: numbers as text, and the sentences below the picture, which screen readers also get.

export const SOLVERS = { euler: "Euler", heun: "Heun", exact: "exact (SciPy)" };

export function number(v) {
  if (v === 0) return "0";
  const size = Math.abs(v);
  if (size >= 100) return v.toFixed(0);
  return size >= 1 ? v.toFixed(1) : v.toPrecision(2).replace(/e-(\d)$/, "e-$1");
}

/** A frame's time, or what a scene has in its place, such as the step of a training. */
export function timeText(model, t) {
  const { time } = model.scene.names ?? {};
  return time ? `${time} ${Math.round(t)}` : `t = ${number(t)}`;
}

export function escapeHtml(text) {
  return String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
}

/** The caption, each student's errors and what is selected, as HTML. */
export function summary(model, view, u) {
  const { caption } = model.scene;
  const sentences = model.planes.map((panel) => errors(model, panel, view));
  if (model.heat && view.row !== null) {
    sentences.push(`Row ${view.row + 1} of ${model.heat.values.shape[0]} is selected.`);
  }
  const images = model.panels.find((panel) => panel.type === "images");
  if (images) {
    const rows = images.rows.map((row) => escapeHtml(row.title)).join("; ");
    sentences.push(`Rows from top to bottom: ${rows}. Shown at t = ${number(model.time(u))}.`);
  }
  return [caption && escapeHtml(caption), ...sentences].filter(Boolean).join(" ");
}

function errors(model, panel, view) {
  const metrics = model.metrics(panel, view);
  const calls = view.solver === "heun" ? 2 * (view.n - 1) : view.n - 1;
  const exact = view.solver === "exact" || !model.mixture;
  const teacher = exact ? "the exact solution" : `${SOLVERS[view.solver]}-${view.n}`;
  const parts = [];
  const who = panel.title ? escapeHtml(panel.title) : "Student";
  const [, k] = model.handover(panel, view);
  if (metrics.toTeacher !== null) {
    // A scene that names its students says itself how often they are called.
    const one = model.scene.names?.student ? "" : " (1 call)";
    const cost = panel.handover ? ` (${1 + 2 * k} calls)` : one;
    parts.push(`<b>${who}</b>${model.mixture ? cost : ""}: RMSE ${errorText(metrics.toTeacher)} to ${teacher}`);
    if (metrics.teacherToExact !== null) parts.push(`${errorText(metrics.toExact)} to the exact solution`);
    if (model.mixture && model.scene.modes) {
      parts.push(`${metrics.wrong.size} of ${model.count} samples in a different mode than ${teacher}`);
    }
  }
  let text = parts.join(", ");
  if (metrics.teacherToExact !== null && panel === model.planes[model.planes.length - 1]) {
    text += `. ${teacher} itself (${calls} calls): RMSE ${errorText(metrics.teacherToExact)} to the exact solution`;
  }
  return text && `${text}.`;
}

function errorText(v) {
  if (v >= 100 || !Number.isFinite(v)) return v.toPrecision(3);
  if (v === 0) return "below 0.0001"; // recorded trajectories are rounded
  return v < 0.001 && v > 0 ? v.toPrecision(2) : v.toFixed(v < 0.1 ? 4 : 3);
}
