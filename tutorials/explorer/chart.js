// The error curve: RMSE over the spread of the samples, on a logarithmic axis, with the teacher's errors as rulers.

import { prepare } from "./theme.js";

const [TOP, BOTTOM] = [1.5, 0.002];
const TICKS = [1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005];
const FONT = "12px system-ui, sans-serif";
const MARGIN = { left: 44, right: 92, top: 10, bottom: 34 };

/**
 * @param {HTMLCanvasElement} canvas
 * @param {{step: number, error: number}[]} curve
 * @param {number} steps of the whole run
 * @param {number[][]} rulers [calls, error] of the teacher
 */
export function drawChart(canvas, { curve, steps, rulers }, theme) {
  const { c, width, height } = prepare(canvas);
  const [right, bottom] = [width - MARGIN.right, height - MARGIN.bottom];
  const toX = (step) => MARGIN.left + (step / steps) * (right - MARGIN.left);
  const toY = (error) => {
    const share = Math.log(TOP / Math.max(error, BOTTOM)) / Math.log(TOP / BOTTOM);
    return MARGIN.top + Math.max(0, share) * (bottom - MARGIN.top);
  };
  c.font = FONT;
  c.textBaseline = "middle";
  c.lineWidth = 1;
  c.fillStyle = theme.faint;
  c.strokeStyle = theme.line;
  c.textAlign = "right";
  c.beginPath();
  for (const tick of TICKS) {
    c.fillText(String(tick), MARGIN.left - 8, toY(tick));
    c.moveTo(MARGIN.left, toY(tick));
    c.lineTo(right, toY(tick));
  }
  c.stroke();
  c.textAlign = "center";
  c.textBaseline = "alphabetic";
  for (const step of [0, steps / 2, steps]) c.fillText(String(step), toX(step), bottom + 16);
  c.fillText("training steps", toX(steps / 2), bottom + 30);

  c.textAlign = "left";
  c.textBaseline = "middle";
  c.strokeStyle = c.fillStyle = theme.teacher;
  c.setLineDash([4, 4]);
  let written = -Infinity; // the lowest label so far
  for (const [calls, error] of rulers) {
    const y = toY(error);
    if (error < BOTTOM) continue;
    c.beginPath();
    c.moveTo(MARGIN.left, y);
    c.lineTo(right, y);
    c.stroke();
    if (y - written < 13) continue;
    c.fillText(calls === 1 ? "teacher, 1 call" : `${calls} calls`, right + 6, y);
    written = y;
  }
  c.setLineDash([]);
  if (!curve.length) return;
  c.strokeStyle = c.fillStyle = theme.student;
  c.lineWidth = 2.5;
  c.lineJoin = "round";
  c.beginPath();
  curve.forEach(({ step, error }, i) => {
    if (i) c.lineTo(toX(step), toY(error));
    else c.moveTo(toX(step), toY(error));
  });
  c.stroke();
  const last = curve.at(-1);
  c.beginPath();
  c.arc(toX(last.step), toY(last.error), 4.5, 0, 7);
  c.fill();
}

/** How many calls the teacher needs for this error, between the rulers on logarithmic axes; null beyond them. */
export function worthOf(error, rulers) {
  for (let i = 0; i + 1 < rulers.length; i++) {
    const [[k0, e0], [k1, e1]] = [rulers[i], rulers[i + 1]];
    if (error <= e0 && error > e1) return Math.round(k0 * (k1 / k0) ** (Math.log(e0 / error) / Math.log(e0 / e1)));
  }
  return null;
}
