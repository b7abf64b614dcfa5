// A panel with a heat map: one row per sample, one column per frame; time below it, its colours' values at its right.

import { bitmap, viridis } from "./marks.js";
import { number } from "./words.js";

export const MARGIN = { right: 64, bottom: 22 }; // in pixels, for the scales
const BAR = 12; // width of the colour scale

export function drawHeat({ c, model, panel, box, view, u }) {
  const [rows, columns] = panel.values.shape;
  const [low, high] = panel.range;
  panel.tile ??= bitmap(columns, rows, panel.values.values, (v) => [...viridis((v - low) / (high - low)), 255]);
  c.imageSmoothingEnabled = false;
  c.drawImage(panel.tile, box.x, box.y, box.width, box.height);
  const x = box.x + (box.width * (u + 0.5)) / (model.last + 1);
  c.lineWidth = 1.5;
  c.strokeStyle = "#fff";
  c.beginPath();
  c.moveTo(x, box.y);
  c.lineTo(x, box.y + box.height);
  c.stroke();
  if (view.row !== null) {
    const y = box.y + (box.height * view.row) / rows;
    // White inside black is visible on dark rows and on bright ones.
    for (const [colour, width] of [["#000", 5], ["#fff", 2]]) {
      c.strokeStyle = colour;
      c.lineWidth = width;
      c.strokeRect(box.x + 2, y - 2, box.width - 4, box.height / rows + 4);
    }
  }
  c.font = "11px system-ui, sans-serif";
  c.fillStyle = "#fff";
  c.shadowColor = "#000";
  c.shadowBlur = 4;
  c.textAlign = "left";
  c.textBaseline = "top";
  c.fillText("smallest error at the endpoint", box.x + 6, box.y + 6);
  c.textBaseline = "alphabetic";
  c.fillText("largest error at the endpoint", box.x + 6, box.y + box.height - 6);
  c.shadowBlur = 0;
}

/** Draw the axis of time below the box of a heat map, and its colour scale at the right. */
export function drawScales({ c, model, theme, panel, box }) {
  const [low, high] = panel.range;
  const bottom = box.y + box.height;
  const bar = box.x + box.width + 8;
  c.font = "11px system-ui, sans-serif";
  c.fillStyle = theme.faint;
  c.strokeStyle = theme.line;
  c.lineWidth = 1;
  c.textBaseline = "top";
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const i = Math.round(share * model.last);
    const x = box.x + (box.width * (i + 0.5)) / (model.last + 1);
    c.beginPath();
    c.moveTo(x, bottom);
    c.lineTo(x, bottom + 4);
    c.stroke();
    c.textAlign = share === 0 ? "left" : share === 1 ? "right" : "center";
    c.fillText((share === 0 ? "t = " : "") + number(model.times[i]), share === 0 ? box.x : x, bottom + 6);
  }
  panel.bar ??= bitmap(1, 64, [...Array(64).keys()], (k) => [...viridis(1 - k / 63), 255]);
  c.imageSmoothingEnabled = true;
  c.drawImage(panel.bar, bar, box.y, BAR, box.height);
  c.textAlign = "left";
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const value = low + share * (high - low);
    c.textBaseline = share === 0 ? "alphabetic" : share === 1 ? "top" : "middle";
    const text = panel.log10 ? (10 ** value).toExponential(1) : number(value);
    c.fillText(text, bar + BAR + 4, bottom - share * box.height);
  }
}
