// Behind the points of a diffusion: the density of the noisy data, and the direction of the flow.

import { REACH } from "./coordinates.js";
import { arrow, bitmap } from "./marks.js";
import { COLOURS } from "./style.js";

/** Draw the density at a frame's noise level; its image is computed once, and kept in `densities`. */
export function drawDensity({ c, model, box, lens, u, densities }) {
  const frame = Math.round(u);
  const side = 84;
  const across = Math.round((side * box.width) / box.height);
  const reach = (REACH * across) / side;
  const key = `${frame} ${across}`;
  if (!densities.has(key)) {
    const t = model.times[frame];
    const s = model.scale(t);
    const values = new Float64Array(across * side);
    let top = 0;
    for (let j = 0; j < side; j++) {
      for (let i = 0; i < across; i++) {
        const x = reach * ((2 * i + 1) / across - 1) * s;
        const y = -REACH * ((2 * j + 1) / side - 1) * s;
        const p = (values[j * across + i] = model.mixture.density(x, y, t));
        if (p > top) top = p;
      }
    }
    const tile = bitmap(across, side, values, (p) => [...COLOURS.density, 165 * (p / top) ** 0.7]);
    densities.set(key, tile);
  }
  const [x0, y0] = lens.to(-reach, REACH);
  const [x1, y1] = lens.to(reach, -REACH);
  c.imageSmoothingEnabled = true;
  c.drawImage(densities.get(key), x0, y0, x1 - x0, y1 - y0);
}

/** Draw arrows in the direction in which the flow moves y as t decreases: -t dy/dt, of order one at every t. */
export function drawFlow({ c, model, theme, box, lens, t }) {
  const s = model.scale(t);
  const d = [0, 0];
  const lines = 15;
  const across = Math.round((lines * box.width) / box.height);
  const reach = (REACH * across) / lines;
  c.strokeStyle = theme.faint;
  c.globalAlpha = 0.75;
  c.lineWidth = 1;
  c.beginPath();
  for (let i = 0; i < across; i++) {
    for (let j = 0; j < lines; j++) {
      const a = reach * ((2 * i + 1) / across - 1);
      const b = REACH * ((2 * j + 1) / lines - 1);
      model.mixture.denoise(a * s, b * s, t, d);
      // y = x / s and t dx/dt = x - D give -t dy/dt = D / s - y sigma_data^2 / s^2, with sigma_data = s(0).
      const pull = (model.scale(0) / s) ** 2;
      let [va, vb] = [d[0] / s - a * pull, d[1] / s - b * pull];
      const size = Math.hypot(va, vb);
      const length = (0.36 * size) / (size + 0.6);
      if (size < 1e-6) continue;
      [va, vb] = [(va / size) * length, (vb / size) * length];
      arrow(c, ...lens.to(a - va / 2, b - vb / 2), ...lens.to(a + va / 2, b + vb / 2), 3.2);
    }
  }
  c.stroke();
  c.globalAlpha = 1;
}
