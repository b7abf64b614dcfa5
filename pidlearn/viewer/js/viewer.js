// The viewer of pidlearn: an animated, interactive picture without dependencies. This file is the entry: it holds the
// state (view, time, animation) and redraws when something has changed.
//
// pidlearn.viewer.script() joins the files of this folder into one script, which the app (as a Streamlit component),
// notebooks, documentation pages and downloaded HTML load and pass a scene, the JSON that pidlearn.viewer writes. The
// teacher's vector field and small students are evaluated here, in the browser, so that dragging a noise point or the
// number of steps never waits for a server.

import { markup, selectStep, showTime, showView } from "./controls.js";
import { INSIDE } from "./coordinates.js";
import { listen } from "./gestures.js";
import { Model } from "./model.js";
import { Picture } from "./picture.js";
import { CSS, themeOf } from "./style.js";

const SECONDS = 5; // duration of one run from noise to data
const REST = 1.5; // seconds of pause at the end of a run

const clamp = (v, low, high) => Math.min(high, Math.max(low, v));

class Viewer {
  constructor(root, scene, onview) {
    this.onview = onview;
    this.box = document.createElement("div");
    this.box.className = "pidlearn";
    const style = document.createElement("style");
    style.textContent = CSS;
    root.append(style, this.box);
    this.resizer = new ResizeObserver(() => this.redraw());
    this.resizer.observe(this.box);
    this.visible = true; // whether any of it is on the screen: elsewhere on a long page nothing moves
    this.watcher = new IntersectionObserver((entries) => {
      this.visible = entries[entries.length - 1].isIntersecting;
      if (this.visible && this.playing) this.redraw();
    });
    this.watcher.observe(this.box);
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.onscheme = () => this.redraw();
    this.dark.addEventListener("change", this.onscheme);
    this.drawn = 0;
    this.show(scene);
  }

  show(scene) {
    if (scene.id === this.scene?.id) return; // the same scene: keep the visitor's view
    // A new state of a student in training: keep the view, and the teacher's solutions.
    const updated = scene.stage !== undefined && scene.stage === this.scene?.stage;
    const solved = this.model?.solved;
    this.scene = scene;
    this.model = new Model(scene);
    if (updated) {
      this.model.solved = solved;
      this.picture.model = this.model;
      this.label();
      this.redraw();
      return;
    }
    const { model } = this;
    const view = { ...scene.view };
    view.handover = Math.min(view.handover, Math.max(0, model.last - 1));
    if (view.row !== null) view.row = model.heat ? Math.min(view.row, model.heat.values.shape[0] - 1) : null;
    if (!view.probe && model.count) view.probe = [...model.start(view.row === null ? 0 : model.heat.order[view.row])];
    this.view = view;
    const stands = scene.view.play && this.still.matches; // a film that may not move shows its end
    this.seek(stands ? model.last : scene.view.frame);
    this.build();
    this.play(scene.view.play && !stands);
    this.redraw();
  }

  build() {
    this.box.innerHTML = markup(this.model, this.view);
    this.canvas = this.box.querySelector("canvas");
    this.canvas.pidlearn = this;
    this.picture = new Picture(this.canvas, this.model);
    for (const element of this.box.querySelectorAll("[data-act], [data-view]")) {
      element.addEventListener("input", () => this.act(element));
      element.addEventListener("change", () => this.send());
      if (element.tagName === "BUTTON") element.addEventListener("click", () => this.play(!this.playing, true));
    }
    listen(this);
    this.label();
  }

  act(element) {
    const { act, view: name } = element.dataset;
    if (name) this.view[name] = element.checked;
    if (act === "time") {
      const u = Number(element.value);
      this.play(false); // this resets the slider, so its value is read before
      this.u = u;
    }
    if (act === "n") selectStep(this.view, Number(element.value));
    if (act === "solver") this.view.solver = element.value;
    if (act === "handover" || act === "steps") this.view[act] = Number(element.value);
    this.label();
    this.redraw();
  }

  /** Move to position u, a fractional frame number; the caller redraws. */
  seek(u) {
    this.u = clamp(u, 0, this.model.last);
  }

  setProbe(probe) {
    const { model } = this;
    const reach = INSIDE * model.scale(model.times[0]);
    const allowed = model.free ? probe.map((v) => clamp(v, -reach, reach)) : [...model.start(model.nearest(probe))];
    this.view = { ...this.view, probe: allowed, row: null };
    this.label();
    this.redraw();
  }

  /** Select a row of the heat map, and the start of its sample. */
  selectRow(wanted) {
    const { heat } = this.model;
    const row = clamp(wanted, 0, heat.values.shape[0] - 1);
    this.view = { ...this.view, row, probe: [...this.model.start(heat.order[row])] };
    this.label();
    this.redraw();
  }

  play(on, byVisitor = false) {
    if (on && this.u >= this.model.last) this.u = 0;
    this.playing = on;
    this.before = null;
    this.rested = 0;
    if (byVisitor) this.send();
    this.label();
    this.redraw();
  }

  redraw() {
    this.pending ??= requestAnimationFrame((now) => {
      this.pending = null;
      this.frame(now);
    });
  }

  frame(now) {
    const width = this.box.clientWidth;
    if (!this.box.isConnected || width < 1) return;
    const { model } = this;
    if (this.playing) {
      const seconds = this.before === null ? 0 : Math.min(0.1, (now - this.before) / 1000);
      if (this.u < model.last) this.seek(this.u + (seconds / SECONDS) * model.last);
      else if ((this.rested += seconds) > REST) [this.u, this.rested] = [0, 0];
      this.before = now;
      this.labelTime();
    }
    this.picture.layout(width);
    this.picture.draw(this.view, this.u, themeOf(this.box, this.dark.matches));
    this.drawn++;
    if (this.playing && this.visible) this.redraw();
  }

  labelTime() {
    this.box.querySelector('[data-act="time"]').value = this.u;
    showTime(this.box, this.model, this.model.time(this.u));
  }

  /** Update all text: the controls, the summary and the description for screen readers. */
  label() {
    if (!this.canvas) return;
    this.box.querySelector('[data-act="play"]').textContent = this.playing ? "❚❚ Pause" : "▶ Play";
    this.labelTime();
    showView(this.box, this.model, this.view, this.u);
  }

  /** Pass the view to the callback, shortly after a gesture has ended. */
  send() {
    if (!this.onview) return;
    clearTimeout(this.sending);
    this.sending = setTimeout(() => {
      const { n, solver, raw, density, flow, trails, probe, handover, steps, row } = this.view;
      const rounded = probe && probe.map((v) => Number(v.toPrecision(5)));
      this.onview({
        n, solver, raw, density, flow, trails, handover, steps, row,
        probe: rounded,
        frame: Math.round(this.u),
        play: this.playing,
      });
    }, 250);
  }

  destroy() {
    this.playing = false;
    clearTimeout(this.sending);
    if (this.pending) cancelAnimationFrame(this.pending);
    this.resizer.disconnect();
    this.watcher.disconnect();
    this.dark.removeEventListener("change", this.onscheme);
    this.box.remove();
  }
}

/** Show a scene in an element; onview, if given, is called with the view after each gesture. */
export function mount(root, scene, onview = null) {
  return new Viewer(root, scene, onview);
}

const mounted = new WeakMap();

/** The Streamlit component: `data` is the scene, and its state `view` is the view that the visitor has chosen. */
export default function component({ data, parentElement, setStateValue }) {
  if (!data) return;
  const onview = (view) => setStateValue("view", view);
  const existing = mounted.get(parentElement);
  if (existing?.box.isConnected) {
    existing.onview = onview;
    existing.show(data);
  } else {
    existing?.destroy(); // its listener and observer would outlive it
    mounted.set(parentElement, mount(parentElement, data, onview));
  }
  return () => {
    const viewer = mounted.get(parentElement);
    if (viewer && !viewer.box.isConnected) viewer.destroy();
  };
}
