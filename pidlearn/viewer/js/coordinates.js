// Coordinates of a plane, in units of y = x / s(t), and the pixels of its box.

export const REACH = 2.9; // half-height of the plane in units of s
export const INSIDE = 2.75; // limit of the noise point, which keeps its whole ring inside the plane

/** Coordinate transforms of a plane: from y to pixels, and back. An ODE has limits of its own. */
export function lensOf(box, limits) {
  if (limits) {
    const [[x0, x1], [y0, y1]] = limits;
    const [kx, ky] = [box.width / (x1 - x0), box.height / (y1 - y0)];
    return {
      to: (x, y) => [box.x + (x - x0) * kx, box.y + box.height - (y - y0) * ky],
      from: (px, py) => [x0 + (px - box.x) / kx, y0 + (box.y + box.height - py) / ky],
    };
  }
  const k = Math.min(box.width, box.height) / (2 * REACH);
  const [cx, cy] = [box.x + box.width / 2, box.y + box.height / 2];
  return {
    to: (x, y) => [cx + k * x, cy - k * y],
    from: (px, py) => [(px - cx) / k, (cy - py) / k],
  };
}
