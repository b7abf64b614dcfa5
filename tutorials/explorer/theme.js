// Colours of the canvases. Those that differ between light and dark are set by the style sheet.

/** Twelve hues of equal lightness, for the direction of a sample's noise. */
const HUES = {
  light: [
    "#c94f7c", "#ce5342", "#c26300", "#a57900", "#758c00", "#139948",
    "#009d84", "#0097b4", "#0089d5", "#5c77df", "#9065d0", "#b357ad",
  ],
  dark: [
    "#f889ad", "#fd8c7b", "#f19a4b", "#d4ac32", "#a6be4e", "#68ca80",
    "#00cdb4", "#00c8e2", "#4ebcff", "#8fabff", "#bf9bfc", "#e38fdb",
  ],
}; // prettier-ignore

export function themeOf(root) {
  const style = getComputedStyle(root);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const dark = colour("scheme") === "dark";
  return {
    hues: dark ? HUES.dark : HUES.light,
    density: dark ? [86, 180, 233] : [0, 114, 178],
    ...Object.fromEntries(["ink", "paper", "faint", "line", "student", "teacher", "probe"].map((k) => [k, colour(k)])),
  };
}

/** Fit a canvas to its size on the page; returns its context, cleared, in CSS pixels. */
export function prepare(canvas) {
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const c = canvas.getContext("2d");
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  return { c, width, height };
}

/** The yellow ring that can be dragged, or moved with the arrow keys. */
export function drawHandle(c, x, y, theme) {
  for (const [colour, width] of [
    [theme.ink, 6],
    [theme.probe, 3.5],
  ]) {
    c.strokeStyle = colour;
    c.lineWidth = width;
    c.beginPath();
    c.arc(x, y, 7, 0, 7);
    c.stroke();
  }
}
