// A picture of moving samples, seen in units of their own spread sqrt(std^2 + t^2), so that noise and data are of one
// size. The noise point can be dragged, by pointer or keys.

import { T } from "./teacher.js";
import { drawHandle, prepare } from "./theme.js";

export const RANGE = 2.7; // of a panel's axes: 1 % of the noise lies outside
const GRASP = 30; // radius in pixels within which a finger takes the noise point instead of scrolling
const NUDGE = 0.05; // by which a key moves it
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

export class Panel {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {(noise: number[]) => void} onNoise called with the noise point, in units of T, when it is moved
   */
  constructor(canvas, onNoise) {
    this.canvas = canvas;
    this.noise = [0, 0];
    this.#listen(onNoise);
  }

  /**
   * @param {object} scene
   * @param {HTMLCanvasElement} scene.density
   * @param {(t: number) => number} scene.scaleAt the spread at a time
   * @param {number} scene.t
   * @param {Float64Array} scene.x samples at t, (2 B)
   * @param {Float64Array} scene.target where the teacher with all its calls has them at t, (2 B)
   * @param {Int8Array} scene.hues which hue each sample has, (B)
   * @param {{x: Float64Array, times: number[], colour: string, width: number}[]} scene.paths of the noise point
   * @param {number[]} scene.noise
   */
  draw({ density, scaleAt, t, x, target, hues, paths, noise }, theme) {
    const { c, width } = prepare(this.canvas);
    this.noise = noise;
    const scale = scaleAt(t);
    const to = (v, s) => (width / 2) * (1 + v / s / RANGE);
    c.drawImage(density, 0, 0, width, width);

    c.strokeStyle = theme.ink;
    c.globalAlpha = 0.55;
    c.lineWidth = 1;
    c.beginPath();
    for (let j = 0; j < x.length; j += 2) {
      c.moveTo(to(x[j], scale), to(-x[j + 1], scale));
      c.lineTo(to(target[j], scale), to(-target[j + 1], scale));
    }
    c.stroke();
    c.globalAlpha = 1;
    const radius = width < 240 ? 2 : 2.6;
    theme.hues.forEach((colour, hue) => {
      c.fillStyle = colour;
      c.beginPath();
      for (let b = 0; b < hues.length; b++) {
        if (hues[b] !== hue) continue;
        const [px, py] = [to(x[2 * b], scale), to(-x[2 * b + 1], scale)];
        c.moveTo(px + radius, py);
        c.arc(px, py, radius, 0, 7);
      }
      c.fill();
    });
    c.lineJoin = "round";
    for (const path of paths) {
      const at = path.times.map((time, i) => [
        to(path.x[2 * i], scaleAt(time)), to(-path.x[2 * i + 1], scaleAt(time)),
      ]); // prettier-ignore
      for (const [colour, extra] of [
        [theme.paper, 2],
        [path.colour, 0],
      ]) {
        c.strokeStyle = c.fillStyle = colour;
        c.lineWidth = path.width + extra;
        c.beginPath();
        at.forEach((p, i) => (i ? c.lineTo(...p) : c.moveTo(...p)));
        c.stroke();
        c.beginPath();
        c.arc(...at.at(-1), path.width + 1.5 + extra / 2, 0, 7);
        c.fill();
      }
    }
    drawHandle(c, to(noise[0], 1), to(-noise[1], 1), theme);
  }

  #listen(onNoise) {
    const { canvas } = this;
    const from = (event) => {
      const box = canvas.getBoundingClientRect();
      const unit = (v, start, size) => (2 * (v - start)) / size - 1;
      return [RANGE * unit(event.clientX, box.left, box.width), -RANGE * unit(event.clientY, box.top, box.height)];
    };
    const holds = (event) => {
      const [x, y] = from(event);
      const pixels = canvas.clientWidth / (2 * RANGE);
      return pixels * Math.hypot(x - this.noise[0], y - this.noise[1]) < GRASP;
    };
    let dragging = false;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch" && !holds(event)) return;
      dragging = true;
      canvas.setPointerCapture(event.pointerId);
      onNoise(from(event));
    });
    canvas.addEventListener("pointermove", (event) => dragging && onNoise(from(event)));
    for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, () => (dragging = false));
    canvas.addEventListener(
      "touchstart",
      (event) => {
        if (event.touches.length === 1 && holds(event.touches[0])) event.preventDefault();
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => {
      const direction = ARROWS[event.key];
      if (!direction || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      onNoise(this.noise.map((v, k) => v + NUDGE * direction[k]));
    });
  }
}

/** The index of the hue of each noise: its direction, in twelfths of a turn. */
export function huesOf(z) {
  return Int8Array.from({ length: z.length / 2 }, (_, b) => {
    const turn = Math.atan2(z[2 * b + 1], z[2 * b]) / (2 * Math.PI);
    return Math.floor(12 * (turn + 1)) % 12;
  });
}

/** Noise of the point that is dragged. */
export const noiseOf = (noise) => Float64Array.from(noise, (v) => T * v);
