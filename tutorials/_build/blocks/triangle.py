"""The (s, t) triangle of the flow map X(x; s -> t) as inline SVG, with the piece that a method learns.

Colours come from the classes in `style.css`, which follow the theme. The start s runs to the right and the end t
upwards, both from 0 to T; steps towards the data are the points below the diagonal s = t.
"""

from __future__ import annotations

from html import escape

LEFT, TOP, SIZE = 26, 8, 140
RIGHT, BOTTOM = LEFT + SIZE, TOP + SIZE
INSIDE = f"M{LEFT},{BOTTOM} L{RIGHT},{TOP} L{RIGHT},{BOTTOM} Z"


def point(s: float, t: float) -> tuple[float, float]:
    """The position of (s, t), both as a share of T."""
    return LEFT + s * SIZE, BOTTOM - t * SIZE


def line(start: tuple[float, float], end: tuple[float, float], kind: str) -> str:
    """A line between two (s, t)."""
    (x1, y1), (x2, y2) = point(*start), point(*end)
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def dot(s: float, t: float, kind: str = "dot", radius: float = 5) -> str:
    """A single step."""
    x, y = point(s, t)
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{kind}"/>'


def arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    """An arrow from one (s, t) to another, horizontal or vertical."""
    (x1, y1), (x2, y2) = point(*start), point(*end)
    size = 5
    dx, dy = (x2 > x1) - (x2 < x1), (y2 > y1) - (y2 < y1)
    base_x, base_y = x2 - size * dx, y2 - size * dy
    head = f"M{x2:.1f},{y2:.1f} L{base_x + size * dy * 0.8:.1f},{base_y + size * dx * 0.8:.1f} "
    head += f"L{base_x - size * dy * 0.8:.1f},{base_y - size * dx * 0.8:.1f} Z"
    return line(start, end, "arrow") + f'<path d="{head}" class="head"/>'


def pairs_of_steps(levels: int) -> str:
    """The steps of grids that halve, each joined to the two steps that it replaces."""
    joins, dots = "", ""
    for level in range(levels):
        n = 2**level
        for k in range(n):
            s, t, middle = (k + 1) / n, k / n, (2 * k + 1) / (2 * n)
            if level < levels - 1:
                joins += line((s, t), (s, middle), "join") + line((s, t), (middle, t), "join")
            dots += dot(s, t, radius=6 - level)
    return joins + dots


PIECES = {
    "start": line((1, 0), (1, 1), "learned") + arrow((0.86, 0.7), (0.86, 0.25)),
    "end": line((0, 0), (1, 0), "learned") + arrow((0.75, 0.13), (0.35, 0.13)),
    "all, t varies": f'<path d="{INSIDE}" class="area"/>'
    + "".join(arrow((s, 0.75 * s), (s, 0.2 * s)) for s in (0.5, 0.7, 0.9)),
    "all, s varies": f'<path d="{INSIDE}" class="area"/>'
    + "".join(arrow((1 - 0.25 * (1 - t), t), (1 - 0.8 * (1 - t), t)) for t in (0.1, 0.3, 0.5)),
    "pairs": pairs_of_steps(4),
    "corner": dot(1, 0, radius=7),
    "some": "".join(dot(1, t, radius=6) for t in (0, 0.25, 0.5, 0.75)),
    "new": line((0, 0), (1, 1), "learned dashed") + dot(1, 0, "ring", 7),
    "samples": dot(1, 0, "ring", 7),
}
"""What is drawn for each piece."""


def triangle(piece: str, label: str) -> str:
    """The triangle with one piece; ``label`` is its text for readers who do not see it."""
    return (
        f'<svg viewBox="0 0 178 180" role="img" aria-label="{escape(label)}">'
        f'<path d="{INSIDE}" class="frame"/>{PIECES[piece]}'
        f'<text x="{LEFT}" y="{BOTTOM + 21}" text-anchor="middle">0</text>'
        f'<text x="{RIGHT}" y="{BOTTOM + 21}" text-anchor="middle">T</text>'
        f'<text x="{LEFT + SIZE / 2}" y="{BOTTOM + 24}" text-anchor="middle">start s</text>'
        f'<text x="{LEFT - 8}" y="{BOTTOM}" text-anchor="end">0</text>'
        f'<text x="{LEFT - 8}" y="{TOP + 8}" text-anchor="end">T</text>'
        f'<text transform="translate({LEFT - 12} {TOP + SIZE / 2}) rotate(-90)" text-anchor="middle">end t</text>'
        "</svg>"
    )


def gallery(pieces: list[tuple[str, str, str]]) -> str:
    """Small triangles side by side: (piece, names of the methods, the piece in words)."""
    figures = "".join(
        f"<figure>{triangle(piece, f'{names}: {words}')}"
        f"<figcaption><strong>{escape(names)}</strong><br>{escape(words)}</figcaption></figure>"
        for piece, names, words in pieces
    )
    return f'<div class="pieces">{figures}</div>'
