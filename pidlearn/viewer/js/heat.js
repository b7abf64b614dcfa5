// A panel with a heat map of residuals: one row per sample, one column per frame.

import { bitmap, viridis } from "./marks.js";
import { number } from "./words.js";

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
  c.fillText("largest error at the endpoint", box.x + 6, box.y + box.height - 20);
  c.fillText("t = " + number(model.times[0]), box.x + 6, box.y + box.height - 6);
  c.textAlign = "right";
  c.fillText("t = " + number(model.times[model.last]), box.x + box.width - 6, box.y + box.height - 6);
  c.shadowBlur = 0;
}
