// Pointer, touch and keys on the canvas. A gesture changes the viewer's view or its time.

import { nearestStep, selectStep } from "./controls.js";

const GRASP = 32; // radius in pixels within which a finger grabs the noise point
const NUDGE = 0.05; // by which a key moves the noise point, in units of s
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** Drag the noise point in a plane; select a row of a heat map; listen to keys. */
export function listen(viewer) {
  const { canvas } = viewer;
  const where = (event) => {
    const frame = canvas.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  };
  const panelAt = (at) => viewer.picture.panelAt(at);
  const typeOf = (panel) => viewer.model.panels[panel]?.type;
  // A finger scrolls the page unless it grabs the noise point; a tap moves the point there.
  const holds = (panel, at) => {
    const held = typeOf(panel) === "plane" && viewer.picture.probeAt(panel, viewer.view);
    return held && Math.hypot(at[0] - held[0], at[1] - held[1]) < GRASP;
  };
  let dragging = -1;
  canvas.addEventListener("pointerdown", (event) => {
    const at = where(event);
    const panel = panelAt(at);
    if (panel < 0 || typeOf(panel) === "images") return;
    if (event.pointerType === "touch" && typeOf(panel) === "plane" && !holds(panel, at)) return;
    dragging = panel;
    canvas.setPointerCapture(event.pointerId);
    moveTo(viewer, panel, at);
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = where(event);
    const panel = panelAt(at);
    if (dragging >= 0) moveTo(viewer, dragging, at);
    else if (typeOf(panel) === "heat" && event.pointerType === "mouse") {
      selectRowAt(viewer, panel, at);
      viewer.send();
    }
  });
  const release = () => {
    if (dragging >= 0) viewer.send();
    dragging = -1;
  };
  canvas.addEventListener(
    "touchstart",
    (event) => {
      const at = where(event.touches[0]);
      if (event.touches.length === 1 && holds(panelAt(at), at)) event.preventDefault();
    },
    { passive: false },
  );
  canvas.addEventListener("click", (event) => {
    const at = where(event);
    const panel = panelAt(at);
    if (event.pointerType !== "touch" || typeOf(panel) !== "plane") return;
    moveTo(viewer, panel, at);
    viewer.send();
  });
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("keydown", (event) => press(viewer, event));
}

/** Move the noise point to a pixel of a plane, or time and row to a pixel of a heat map. */
function moveTo(viewer, panel, at) {
  const { model, picture, view } = viewer;
  if (model.panels[panel].type === "heat") {
    const box = picture.boxes[panel];
    viewer.play(false);
    viewer.seek(((at[0] - box.x) / box.width) * (model.last + 1) - 0.5);
    selectRowAt(viewer, panel, at);
    return;
  }
  const s = model.divisor(view, model.times[0]);
  viewer.setProbe(picture.lens(panel).from(...at).map((v) => v * s));
}

function selectRowAt(viewer, panel, [, py]) {
  const box = viewer.picture.boxes[panel];
  viewer.selectRow(Math.floor(((py - box.y) / box.height) * viewer.model.heat.values.shape[0]));
}

function press(viewer, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return; // a shortcut of the browser
  const { view, model } = viewer;
  const direction = ARROWS[event.key];
  if (event.key === " ") viewer.play(!viewer.playing, true);
  else if (event.key.toLowerCase() === "r" && model.mixture) view.raw = !view.raw;
  else if (event.key === "Home") viewer.seek(0);
  else if (event.key === "End") viewer.seek(model.last);
  else if (direction && event.shiftKey && view.probe) shiftProbe(viewer, direction);
  else if (direction && direction[0]) {
    viewer.play(false);
    viewer.seek(Math.round(viewer.u) + direction[0]);
  } else if (direction && model.heat) {
    const from = view.row ?? (direction[1] < 0 ? -1 : model.heat.values.shape[0]);
    viewer.selectRow(from - direction[1]);
  } else if (direction && model.mixture) selectStep(view, nearestStep(view.n) + direction[1]);
  else return;
  event.preventDefault();
  viewer.label();
  viewer.redraw();
  viewer.send();
}

/** Move the noise point a little; where it can only be a recorded start, select the next one. */
function shiftProbe(viewer, direction) {
  const { view, model } = viewer;
  if (model.free) {
    const step = NUDGE * model.scale(model.times[0]);
    viewer.setProbe(view.probe.map((v, k) => v + step * direction[k]));
  } else {
    const next = (model.nearest(view.probe) + direction[0] + direction[1] + model.count) % model.count;
    viewer.setProbe([...model.start(next)]);
  }
}
