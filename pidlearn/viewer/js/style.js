// What the viewer looks like: colours, style sheet, the marks of the legend, and the theme of the surrounding page.

// Okabe & Ito's colours are distinguishable with every kind of colour vision.
export const COLOURS = { student: "#d55e00", probe: "#f0e442", density: [0, 114, 178] };

export const CSS = `
.pidlearn { font: 14px/1.4 var(--st-font, system-ui, sans-serif); color: var(--ink); --ink: #222; --paper: #fff;
  --faint: #767676; --line: #ccc; container-type: inline-size; }
.pidlearn.dark { --ink: #eee; --paper: #0e1117; --faint: #a0a0a0; --line: #444; }
.pidlearn canvas { display: block; width: 100%; touch-action: pan-y; cursor: crosshair; }
.pidlearn canvas:focus-visible { outline: 3px solid #56b4e9; outline-offset: 1px; }
.pidlearn .legend, .pidlearn .row { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: center; margin: 4px 0; }
.pidlearn .legend { font-size: 13px; color: var(--faint); }
.pidlearn .legend svg { width: 16px; height: 16px; vertical-align: -3px; margin-right: 3px; }
.pidlearn label { display: flex; gap: 6px; align-items: center; white-space: nowrap; }
.pidlearn label.wide { flex: 1 1 220px; }
.pidlearn input[type=range] { flex: 1 1 90px; min-width: 90px; accent-color: ${COLOURS.student}; }
.pidlearn input[type=checkbox] { accent-color: ${COLOURS.student}; }
.pidlearn output { display: inline-block; min-width: 5.4em; font-variant-numeric: tabular-nums; }
.pidlearn button, .pidlearn select { font: inherit; color: inherit; background: var(--paper);
  border: 1px solid var(--line); border-radius: 6px; padding: 3px 10px; min-height: 30px; cursor: pointer; }
.pidlearn button { min-width: 5.6em; }
.pidlearn .summary { margin: 6px 0 0; font-variant-numeric: tabular-nums; }
.pidlearn .summary b { color: ${COLOURS.student}; }
.pidlearn.dark .summary b { color: #ff8c42; }
.pidlearn .keys { margin: 2px 0 0; font-size: 12px; color: var(--faint); }
`;

export const LEGEND = {
  student: `<circle cx="8" cy="8" r="4.5" fill="${COLOURS.student}"/>`,
  teacher: `<circle cx="8" cy="8" r="5" fill="none" stroke="currentColor" stroke-width="1.8"/>`,
  wrong: `<path d="M3 3l10 10M13 3l-10 10" stroke="currentColor" stroke-width="2.2"/>`,
  probe: `<circle cx="8" cy="8" r="5.5" fill="none" stroke="currentColor" stroke-width="5"/><circle
    cx="8" cy="8" r="5.5" fill="none" stroke="${COLOURS.probe}" stroke-width="3"/>`,
};

const LIGHT = { ink: "#1a1a1a", paper: "#ffffff", faint: "#76797d", line: "#ccc", teacher: "#6b6f73" };
const DARK = { ink: "#f4f4f4", paper: "#14181f", faint: "#9aa0a6", line: "#444", teacher: "#b9bec4" };

/** The colours of the surrounding page: Streamlit defines them as CSS variables, a plain page follows the system. */
export function themeOf(box, prefersDark) {
  const paper = getComputedStyle(box).getPropertyValue("--st-background-color").trim();
  const dark = paper ? luminance(paper) < 0.4 : prefersDark;
  box.classList.toggle("dark", dark);
  return dark ? DARK : LIGHT;
}

function luminance(colour) {
  const hex = /^#([0-9a-f]{6})/i.exec(colour);
  const parts = hex
    ? [0, 2, 4].map((i) => parseInt(hex[1].slice(i, i + 2), 16))
    : (colour.match(/[\d.]+/g) ?? [255, 255, 255]).slice(0, 3).map(Number);
  return (0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]) / 255;
}
