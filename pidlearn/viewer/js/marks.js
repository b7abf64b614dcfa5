// Small parts of pictures: marks that are stamped many times, bitmaps, arrows and a colour map.

const MARK = 14; // side of a mark's square in pixels
const marks = new Map();

/** Return a function that draws a mark at a point. The mark is drawn once, and copied from then on. */
export function stamp(c, shape, colour, ratio) {
  const key = `${shape} ${colour} ${ratio}`;
  if (!marks.has(key)) marks.set(key, mark(shape, colour, ratio));
  return (x, y) => c.drawImage(marks.get(key), x - MARK / 2, y - MARK / 2, MARK, MARK);
}

function mark(shape, colour, ratio) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = MARK * ratio;
  const c = tile.getContext("2d");
  c.scale(ratio, ratio);
  c.fillStyle = c.strokeStyle = colour;
  c.lineWidth = shape === "cross" ? 2 : 1.5;
  c.beginPath();
  if (shape === "dot") c.arc(7, 7, 2.4, 0, 7);
  if (shape === "ring") c.arc(7, 7, 3.6, 0, 7);
  if (shape === "cross") {
    c.moveTo(3, 3);
    c.lineTo(11, 11);
    c.moveTo(11, 3);
    c.lineTo(3, 11);
  }
  if (shape === "dot") c.fill();
  else c.stroke();
  return tile;
}

/** An image of one pixel per value; colour returns [r, g, b, a] of a value. */
export function bitmap(width, height, values, colour) {
  const image = new ImageData(width, height);
  values.forEach((v, k) => image.data.set(colour(v), 4 * k));
  const tile = document.createElement("canvas");
  tile.width = width;
  tile.height = height;
  tile.getContext("2d").putImageData(image, 0, 0);
  return tile;
}

/** Add an arrow to the current path. */
export function arrow(c, x0, y0, x1, y1, head) {
  const length = Math.hypot(x1 - x0, y1 - y0);
  if (length < 0.5) return;
  const [ux, uy] = [(x1 - x0) / length, (y1 - y0) / length];
  c.moveTo(x0, y0);
  c.lineTo(x1, y1);
  c.moveTo(x1 - head * (ux + 0.6 * uy), y1 - head * (uy - 0.6 * ux));
  c.lineTo(x1, y1);
  c.lineTo(x1 - head * (ux - 0.6 * uy), y1 - head * (uy + 0.6 * ux));
}

const VIRIDIS = [
  [68, 1, 84],
  [59, 82, 139],
  [33, 145, 140],
  [94, 201, 98],
  [253, 231, 37],
];

/** The colour [r, g, b] of a share between 0 and 1. */
export function viridis(share) {
  const u = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const i = Math.min(VIRIDIS.length - 2, Math.floor(u));
  return VIRIDIS[i].map((v, k) => v + (u - i) * (VIRIDIS[i + 1][k] - v));
}
