// The canvas: where each panel is, and what draws it.

import { lensOf } from "./coordinates.js";
import { drawHeat, drawScales, MARGIN } from "./heat.js";
import { drawImages, imageLayout } from "./images.js";
import { drawPlane, probePosition } from "./plane.js";

const MAX_HEIGHT = 500; // of a plane in pixels: picture and controls together fit the screen of a laptop
const PANELS = { plane: drawPlane, heat: drawHeat, images: drawImages };

/** Draws all panels on one canvas: side by side, or one below the other if it is narrow. */
export class Picture {
  constructor(canvas, model) {
    this.canvas = canvas;
    this.model = model;
    this.context = canvas.getContext("2d");
    this.densities = new Map();
  }

  /** Compute each panel's box in CSS pixels, and resize the canvas. */
  layout(width) {
    const { panels } = this.model;
    const gap = 14;
    const title = panels.some((panel) => panel.title) ? 24 : 0;
    const across = width < 560 ? 1 : panels.length;
    const cell = (width - gap * (across - 1)) / across;
    this.boxes = [];
    let y = 0;
    let x = 0;
    let deepest = 0;
    for (const panel of panels) {
      const height = panel.type === "images" ? imageLayout(panel, cell).height : Math.min(cell, MAX_HEIGHT);
      const { right, bottom } = panel.type === "heat" ? MARGIN : { right: 0, bottom: 0 };
      this.boxes.push({ x, y: y + title, width: cell - right, height: height - bottom });
      deepest = Math.max(deepest, height + title);
      if (across === 1) {
        y += height + title + gap;
        deepest = 0;
      } else x += cell + gap;
    }
    const total = Math.ceil(across === 1 ? y - gap : deepest);
    const ratio = Math.min(2, globalThis.devicePixelRatio || 1);
    this.ratio = ratio;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(total * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(total * ratio);
      this.canvas.style.height = `${total}px`;
    }
  }

  draw(view, u, theme) {
    const { context: c, model, ratio, densities } = this;
    const t = model.time(u);
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, this.canvas.width / ratio, this.canvas.height / ratio);
    model.panels.forEach((panel, i) => {
      const box = this.boxes[i];
      if (panel.title) {
        c.fillStyle = theme.ink;
        c.font = "600 13px system-ui, sans-serif";
        c.textAlign = "left";
        c.textBaseline = "alphabetic";
        c.fillText(panel.title, box.x + 2, box.y - 8, box.width);
      }
      c.save();
      c.beginPath();
      c.rect(box.x, box.y, box.width, box.height);
      c.clip();
      PANELS[panel.type]({ c, model, theme, ratio, densities, panel, box, lens: this.lens(i), view, u, t });
      c.restore();
      if (panel.type === "heat") drawScales({ c, model, theme, panel, box });
      if (panel.type !== "images") {
        c.strokeStyle = theme.line;
        c.lineWidth = 1;
        c.strokeRect(box.x + 0.5, box.y + 0.5, box.width - 1, box.height - 1);
      }
    });
  }

  lens(i) {
    return lensOf(this.boxes[i], this.model.scene.limits);
  }

  /** The index of the panel at a pixel; -1 if there is none. */
  panelAt([px, py]) {
    return this.boxes.findIndex((b) => px >= b.x && px < b.x + b.width && py >= b.y && py < b.y + b.height);
  }

  /** The pixel at which plane i shows the noise point. */
  probeAt(i, view) {
    return view.probe && probePosition(this.model, this.lens(i), view);
  }
}
