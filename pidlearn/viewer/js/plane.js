// A panel of moving points: teacher and student at one time, their trajectories, and the noise point that can be
// dragged.

import { drawDensity, drawFlow } from "./background.js";
import { arrow, stamp } from "./marks.js";
import { COLOURS } from "./style.js";
import { timeText } from "./words.js";

const GAPS = 60; // arrows drawn for a soft boundary

export function drawPlane(drawing) {
  const { c, model, theme, ratio, panel, box, lens, view, u, t } = drawing;
  c.fillStyle = theme.paper;
  c.fillRect(box.x, box.y, box.width, box.height);
  if (model.mixture && !view.raw) {
    if (view.density) drawDensity(drawing);
    if (view.flow) drawFlow(drawing);
  }
  const teacher = model.teacher(view);
  const { wrong } = model.metrics(panel, view);
  const now = model.between(panel, view, u);
  const target = teacher?.at(t);
  const s = model.divisor(view, t);
  const place = (x, i) => lens.to(x[2 * i] / s, x[2 * i + 1] / s);

  if (view.trails) {
    if (teacher) drawTrails(drawing, (f) => teacher.at(model.times[f]), theme.teacher, 2.6, 0.55);
    if (now) drawTrails(drawing, (f) => model.tail(panel, view, model.times[f]), COLOURS.student, 1.2, 0.9);
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
    const ring = stamp(c, "ring", theme.teacher, ratio);
    for (let i = 0; i < model.count; i++) ring(...place(target, i));
  }
  if (now) {
    const dot = stamp(c, "dot", COLOURS.student, ratio);
    for (let i = 0; i < model.count; i++) if (!wrong.has(i)) dot(...place(now, i));
    const cross = stamp(c, "cross", theme.ink, ratio);
    for (const i of wrong) cross(...place(now, i));
  }
  if (panel.student?.boundary === "soft") drawGaps(drawing);
  if (view.probe) drawProbe(drawing);
  drawAxes(drawing);
}

/** Draw the first trajectories up to the current time; positions returns all samples at a frame. */
function drawTrails({ c, model, lens, view, u }, positions, colour, width, alpha) {
  c.strokeStyle = colour;
  c.lineWidth = width;
  c.globalAlpha = alpha;
  c.lineJoin = "round";
  const whole = Math.floor(u);
  const frames = [];
  for (let f = 0; f <= whole; f++) frames.push([positions(f), model.divisor(view, model.times[f])]);
  c.beginPath();
  for (let i = 0; i < model.trails; i++) {
    frames.forEach(([x, s], f) => {
      const at = lens.to(x[2 * i] / s, x[2 * i + 1] / s);
      if (f) c.lineTo(...at);
      else c.moveTo(...at);
    });
  }
  c.stroke();
  c.globalAlpha = 1;
}

/** Draw arrows from z to x(z, T), which a soft boundary does not force to be equal. */
function drawGaps({ c, model, theme, panel, lens, view }) {
  const s = model.divisor(view, model.times[0]);
  const x = model.cloud(panel, view, model.times[0]);
  c.strokeStyle = theme.ink;
  c.lineWidth = 1.2;
  c.beginPath();
  for (let i = 0; i < Math.min(GAPS, model.count); i++) {
    const from = lens.to(model.starts[2 * i] / s, model.starts[2 * i + 1] / s);
    const to = lens.to(x[2 * i] / s, x[2 * i + 1] / s);
    arrow(c, ...from, ...to, 5);
  }
  c.stroke();
}

/** Draw the noise point that can be dragged, and both its trajectories to the endpoint. */
function drawProbe({ c, model, theme, panel, lens, view }) {
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
      const s = model.divisor(view, model.times[f]);
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
  c.fillStyle = theme.paper;
  c.beginPath();
  c.arc(...probePosition(model, lens, view), 8, 0, 7);
  c.fill();
  for (const [colour, width] of [[theme.ink, 6], [COLOURS.probe, 3.5]]) {
    c.strokeStyle = colour;
    c.lineWidth = width;
    c.stroke();
  }
}

/** The position of the noise point in pixels. */
export function probePosition(model, lens, view) {
  const s = model.divisor(view, model.times[0]);
  return lens.to(view.probe[0] / s, view.probe[1] / s);
}

function drawAxes({ c, model, theme, box, view, t }) {
  const { axes } = model.scene;
  c.fillStyle = theme.faint;
  c.font = "11px system-ui, sans-serif";
  c.textBaseline = "alphabetic";
  c.textAlign = "right";
  const unit = !model.isDiffusion ? axes[0] : view.raw ? "x, not rescaled" : "x / √(σ² + t²)";
  const write = (text, x, y) => {
    c.lineWidth = 4;
    c.lineJoin = "round";
    c.strokeStyle = theme.paper; // an outline keeps the text readable on any background
    c.strokeText(text, x, y);
    c.fillText(text, x, y);
  };
  write(unit, box.x + box.width - 6, box.y + box.height - 6);
  c.textAlign = "left";
  if (!model.isDiffusion) write(axes[1], box.x + 6, box.y + 14);
  write(timeText(model, t), box.x + 6, box.y + box.height - 6);
}
