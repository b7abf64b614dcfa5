// A panel of small grey images that change with time: the rows are labelled, and wrap to bands on a narrow screen.

import { bitmap } from "./marks.js";
import { COLOURS } from "./style.js";

/** Sizes in pixels of a panel of this width, and how many images are shown. */
export function imageLayout(panel, width) {
  const count = panel.rows[0].frames.shape[1];
  const label = 118;
  const gap = 4;
  const across = Math.max(3, Math.min(count, Math.floor((width - label) / 64)));
  const size = Math.min(96, (width - label) / across - gap);
  const shown = Math.min(count, across * Math.ceil(Math.min(count, 24) / across));
  const bands = Math.ceil(shown / across);
  return { label, gap, across, size, shown, height: bands * panel.rows.length * (size + gap) + (bands - 1) * 12 };
}

export function drawImages({ c, theme, panel, box, u }) {
  const { label, gap, across, size, shown } = imageLayout(panel, box.width);
  const frame = Math.round(u);
  c.imageSmoothingEnabled = false;
  c.textBaseline = "middle";
  panel.rows.forEach((row, r) => {
    for (let i = 0; i < shown; i++) {
      const band = Math.floor(i / across);
      const y = box.y + band * (panel.rows.length * (size + gap) + 12) + r * (size + gap);
      if (i % across === 0) {
        c.fillStyle = row.title.startsWith("student") ? COLOURS.student : theme.ink;
        c.font = "600 12px system-ui, sans-serif";
        c.textAlign = "right";
        c.fillText(row.title, box.x + label - 10, y + size / 2, label - 12);
      }
      const x = box.x + label + (i % across) * (size + gap);
      c.drawImage(image(row, frame, i), x, y, size, size);
    }
  });
}

function image(row, frame, i) {
  const [, count, side] = row.frames.shape;
  const key = frame * count + i;
  row.tiles ??= new Map();
  if (!row.tiles.has(key)) {
    const pixels = row.frames.values.subarray(key * side * side, (key + 1) * side * side);
    row.tiles.set(key, bitmap(side, side, pixels, (v) => [v, v, v, 255]));
  }
  return row.tiles.get(key);
}
