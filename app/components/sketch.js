// A canvas to draw points on: press and drag, or use the arrow keys and Enter. Backspace undoes the last stroke.

const SIDE = 320;
const SPACING = 9; // pixels between two points of a stroke

const CSS = `
  .sketch { font: 13px/1.4 var(--st-font, sans-serif); color: var(--st-text-color, #222); }
  .sketch canvas { width: 100%; max-width: ${SIDE}px; aspect-ratio: 1; touch-action: none; cursor: crosshair;
    border: 1px solid var(--st-border-color, #bbb); border-radius: 6px; display: block; }
  .sketch canvas:focus-visible { outline: 2px solid var(--st-primary-color, #d55e00); }
  .sketch p { margin: 4px 0 6px; }
  .sketch button { font: inherit; color: inherit; background: none; border: 1px solid var(--st-border-color, #bbb);
    border-radius: 6px; padding: 2px 10px; margin-right: 6px; cursor: pointer; }
`;

class Sketch {
  constructor(root, data, send) {
    this.root = root;
    this.send = send;
    this.limit = data.limit;
    this.points = data.points.map((p) => [...p]);
    this.strokes = this.points.length ? [this.points.length] : [];
    this.cursor = [0, 0];
    const style = document.createElement("style");
    style.textContent = CSS;
    this.box = document.createElement("div");
    this.box.className = "sketch";
    this.box.innerHTML = `<canvas tabindex="0" role="application" width="${2 * SIDE}" height="${2 * SIDE}"
        aria-label="Canvas for points: press and drag, or move with the arrow keys and place a point with Enter"></canvas>
      <p aria-live="polite"></p><button type="button" data-do="undo">Undo</button><button type="button" data-do="clear">Clear</button>`;
    root.append(style, this.box);
    this.canvas = this.box.querySelector("canvas");
    this.canvas.sketch = this;
    this.listen();
    this.draw();
  }

  listen() {
    const { canvas } = this;
    let last = null;
    const put = (event) => {
      const frame = canvas.getBoundingClientRect();
      const at = [event.clientX - frame.left, event.clientY - frame.top];
      if (last && Math.hypot(at[0] - last[0], at[1] - last[1]) < SPACING) return;
      last = at;
      this.add([(2 * at[0]) / frame.width - 1, 1 - (2 * at[1]) / frame.height]);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.strokes.push(0);
      last = null;
      put(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      // A busy browser merges several moves into one event: take the points between, too.
      const moves = event.getCoalescedEvents?.() ?? []; // undefined outside of secure contexts
      for (const move of moves.length ? moves : [event]) put(move);
    });
    const end = () => {
      if (last) this.done();
      last = null;
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("keydown", (event) => this.key(event));
    this.box.querySelector('[data-do="undo"]').addEventListener("click", () => this.undo());
    this.box.querySelector('[data-do="clear"]').addEventListener("click", () => this.clear());
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // a shortcut of the browser
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (direction) this.cursor = this.cursor.map((v, i) => Math.min(1, Math.max(-1, v + 0.08 * direction[i])));
    else if (event.key === "Enter" || event.key === " ") {
      this.strokes.push(0);
      this.add(this.cursor);
      this.done();
    } else if (event.key === "Backspace") this.undo();
    else return;
    event.preventDefault();
    this.draw();
  }

  add(point) {
    if (this.points.length >= this.limit || point.some((v) => Math.abs(v) > 1)) return;
    this.points.push([...point]);
    this.strokes[this.strokes.length - 1] += 1;
    this.draw();
  }

  undo() {
    this.points.splice(this.points.length - (this.strokes.pop() ?? 0));
    this.done();
  }

  clear() {
    this.points = [];
    this.strokes = [];
    this.done();
  }

  done() {
    this.draw();
    this.send(this.points.map((p) => p.map((v) => Number(v.toFixed(3)))));
  }

  draw() {
    const c = this.canvas.getContext("2d");
    const style = getComputedStyle(this.box);
    const to = ([x, y]) => [(x + 1) * SIDE, (1 - y) * SIDE];
    c.clearRect(0, 0, 2 * SIDE, 2 * SIDE);
    c.strokeStyle = c.fillStyle = style.color;
    c.globalAlpha = 0.15;
    c.beginPath();
    for (const [a, b] of [[[-1, 0], [1, 0]], [[0, -1], [0, 1]]]) {
      c.moveTo(...to(a));
      c.lineTo(...to(b));
    }
    c.stroke();
    c.globalAlpha = 1;
    for (const point of this.points) {
      c.beginPath();
      c.arc(...to(point), 6, 0, 2 * Math.PI);
      c.fill();
    }
    const [x, y] = to(this.cursor);
    c.globalAlpha = 0.6;
    c.strokeRect(x - 9, y - 9, 18, 18);
    c.globalAlpha = 1;
    const full = this.points.length >= this.limit ? " (the maximum)" : "";
    this.box.querySelector("p").textContent = `${this.points.length} point${this.points.length === 1 ? "" : "s"}${full}`;
  }
}

const mounted = new WeakMap();

export default function component({ data, parentElement, setStateValue }) {
  const send = (points) => setStateValue("points", points);
  const existing = mounted.get(parentElement);
  if (existing?.box.isConnected) existing.send = send;
  else mounted.set(parentElement, new Sketch(parentElement, data, send));
}
