// The drawing area: strokes become the centres of Gaussians. With keys, a brush moves and stamps.

import { prepare } from "./theme.js";
import { LIMIT, MAX_POINTS, quantised } from "./view.js";

const SPACING = 0.18; // of points along a stroke: 1.5 standard deviations, so that they merge to a line
const MARGIN = 1.1; // the area shows a little more than can be drawn on
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

export class Pad {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {(points: number[][], done: boolean) => void} onDraw called with all points, and whether the stroke has ended
   */
  constructor(canvas, onDraw) {
    Object.assign(this, { canvas, onDraw, strokes: [], brush: [0, 0], showsBrush: false });
    this.#listen();
  }

  get points() {
    return this.strokes.flat();
  }

  /** Replace what is drawn, as one stroke. */
  load(points) {
    this.strokes = points.length ? [points] : [];
  }

  undo() {
    this.strokes.pop();
    this.onDraw(this.points, true);
  }

  draw(mixture, theme) {
    const { c, width } = prepare(this.canvas);
    const to = (v) => (width / 2) * (1 + v / (MARGIN * LIMIT));
    const radius = (width / (2 * MARGIN * LIMIT)) * Math.sqrt(mixture.variance);
    c.fillStyle = `rgb(${theme.density})`;
    for (let k = 0; k < mixture.count; k++) {
      const at = [to(mixture.means[2 * k]), to(-mixture.means[2 * k + 1])];
      for (const [alpha, r] of [
        [0.16, 2 * radius],
        [0.3, radius],
        [0.9, 2],
      ]) {
        c.globalAlpha = alpha;
        c.beginPath();
        c.arc(...at, r, 0, 7);
        c.fill();
      }
    }
    c.globalAlpha = 1;
    if (!this.showsBrush) return;
    const [x, y] = [to(this.brush[0]), to(-this.brush[1])];
    c.strokeStyle = theme.ink;
    c.lineWidth = 1.5;
    c.beginPath();
    c.arc(x, y, 6, 0, 7);
    for (const [dx, dy] of Object.values(STEPS)) {
      c.moveTo(x + 4 * dx, y + 4 * dy);
      c.lineTo(x + 11 * dx, y + 11 * dy);
    }
    c.stroke();
  }

  /** Add points from the end of the current stroke to here. */
  #strokeTo([x, y]) {
    const stroke = this.strokes.at(-1);
    let [px, py] = stroke.at(-1) ?? [Infinity, Infinity];
    let left = Math.hypot(x - px, y - py);
    if (left === Infinity) [px, py, left] = [x, y, SPACING];
    while (left >= SPACING && this.points.length < MAX_POINTS) {
      const share = SPACING / left;
      [px, py] = [px + share * (x - px), py + share * (y - py)];
      stroke.push([quantised(px), quantised(py)]);
      left -= SPACING;
    }
  }

  #listen() {
    const { canvas } = this;
    const from = (event) => {
      const box = canvas.getBoundingClientRect();
      const unit = (v, start, size) => MARGIN * LIMIT * ((2 * (v - start)) / size - 1);
      return [unit(event.clientX, box.left, box.width), -unit(event.clientY, box.top, box.height)];
    };
    let drawing = false;
    canvas.addEventListener("pointerdown", (event) => {
      drawing = true;
      this.showsBrush = false;
      canvas.setPointerCapture(event.pointerId);
      this.strokes.push([]);
      this.#strokeTo(from(event));
      this.onDraw(this.points, false);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!drawing) return;
      this.#strokeTo(from(event));
      this.onDraw(this.points, false);
    });
    for (const type of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(type, () => {
        if (drawing) this.onDraw(this.points, true);
        drawing = false;
      });
    }
    canvas.addEventListener("blur", () => this.#show(false));
    canvas.addEventListener("keydown", (event) => this.#press(event));
  }

  #show(shown) {
    this.showsBrush = shown;
    this.onDraw(null, false);
  }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // a shortcut of the browser
    const direction = STEPS[event.key];
    if (direction) {
      const step = event.shiftKey ? 0.5 : 0.1;
      this.brush = this.brush.map((v, k) => quantised(v + step * direction[k]));
      this.#show(true);
    } else if (event.key === "Enter" || event.key === " ") {
      this.showsBrush = true;
      if (this.points.length < MAX_POINTS) this.strokes.push([this.brush]);
      this.onDraw(this.points, true);
    } else if (event.key === "Backspace" || event.key === "Delete") this.undo();
    else return;
    event.preventDefault();
  }
}
