"""A chain of questions as inline SVG: "yes" leads to the right, to an answer, "no" down, to the next question.

Colours come from the classes in `style.css`, which follow the theme; on a phone it shows a list instead.
"""

from __future__ import annotations

from html import escape

WIDTH, HEIGHT, GAP, ACROSS = 300, 36, 26, 64
RIGHT = WIDTH + ACROSS


def box(x: float, y: float, text: str, kind: str) -> str:
    """A question or an answer."""
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5" class="{kind}"/>'
        f'<text x="{x + WIDTH / 2}" y="{y + HEIGHT / 2 + 5}" text-anchor="middle">{escape(text)}</text>'
    )


def arrow(x: float, y: float, to_x: float, to_y: float, word: str) -> str:
    """An arrow to the right or down, and its word."""
    size, down = 5, to_x == x
    points = [(to_x, to_y), *((to_x - s, to_y - size) if down else (to_x - size, to_y - s) for s in (-4, 4))]
    head = " ".join(f"{a},{b}" for a, b in points)
    at = (x + 9, (y + to_y) / 2 + 4) if down else (x + 16, y - 6)
    return (
        f'<line x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}"/><polygon points="{head}"/>'
        f'<text x="{at[0]}" y="{at[1]}">{word}</text>'
    )


def tree(questions: list[tuple[str, str]], last: str, label: str) -> str:
    """The questions, each with the answer if it is a yes, and the answer if none is."""
    parts = []
    for k, (question, answer) in enumerate(questions):
        y = 1 + k * (HEIGHT + GAP)
        parts += [box(1, y, question, "question"), box(RIGHT, y, answer, "answer")]
        parts += [arrow(1 + WIDTH, y + HEIGHT / 2, RIGHT, y + HEIGHT / 2, "yes")]
        parts += [arrow(WIDTH / 2, y + HEIGHT, WIDTH / 2, y + HEIGHT + GAP, "no")]
    bottom = 1 + len(questions) * (HEIGHT + GAP)
    parts.append(box(1, bottom, last, "answer"))
    lines = [f"<li>{escape(question)} <b>{escape(answer)}</b></li>" for question, answer in questions]
    listed = f'<ol class="tree-list">{"".join(lines)}<li>Otherwise: <b>{escape(last)}</b></li></ol>'
    return (
        f'<svg class="tree" viewBox="0 0 {RIGHT + WIDTH + 1} {bottom + HEIGHT + 1}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>{listed}'
    )
