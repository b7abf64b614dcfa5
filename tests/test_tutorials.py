"""The site's pages. Building them (`make docs`) runs every Python block, which takes minutes; so does `-m slow`."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import pidlearn

HERE = Path(__file__).parents[1]
PAGES = sorted((HERE / "tutorials").rglob("*.md"))
LESSONS = sorted((HERE / "tutorials/learn").glob("*.md"))
YOURS = {"teachers": ("folder", "model", "net", "score_model", "denoiser", "diffusion")}
"""Names that a page says are the reader's own."""
CITED_TESTS = sorted(
    {name for page in PAGES for name in re.findall(r"`(tests/[\w/]+\.py(?:::\w+)*)`", page.read_text())}
)
REFERENCES = sorted(
    {name for page in PAGES for name in re.findall(r"(?:^::: |\]\[)(pidlearn[\w.]*)", page.read_text(), re.MULTILINE)}
)


def blocks_of(page: Path | str) -> list[tuple[str, str]]:
    """The Python blocks of a page, or of its text, those within a folded answer, too: options and code."""
    text = page if isinstance(page, str) else page.read_text()
    blocks = re.findall(r"^( *)```(python.*?)\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE)
    return [(options, textwrap.dedent(code)) for _, options, code in blocks]


def shown_code(page: Path, folded: bool = True) -> str:
    """The visible Python blocks of a page, one after the other, with or without those of folded answers."""
    text = page.read_text() if folded else re.sub(r"^ +```python.*?^ +```$", "", page.read_text(), flags=re.S | re.M)
    return "\n".join(code for options, code in blocks_of(text) if "source=" in options)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_python_is_run_and_is_python(page: Path) -> None:
    for options, code in blocks_of(page):
        assert 'exec="on"' in options
        compile(code, page.name, "exec")


@pytest.mark.parametrize("page", [page for page in PAGES if shown_code(page)], ids=lambda page: page.stem)
@pytest.mark.parametrize("folded", [True, False])
def test_what_a_page_shows_can_be_typed(page: Path, folded: bool) -> None:
    """No visible block uses a name that only a hidden one has: a drawing, or a part of the build."""
    pytest.importorskip("ruff")  # of the extra dev
    code = shown_code(page, folded)
    assert not re.search(r"^(from|import) (show|dots|tree|triangle)\b", code, re.MULTILINE)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=F821,F823", "--output-format=json", "-"]
    problems = json.loads(subprocess.run(command, input=code, text=True, capture_output=True).stdout)
    assert {problem["message"] for problem in problems} <= {
        f"Undefined name `{name}`" for name in YOURS.get(page.stem, ())
    }


def test_there_are_ten_lessons() -> None:
    assert len(LESSONS) == 10


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_a_lesson_has_its_parts(page: Path) -> None:
    """One claim, a question before its answer, an exercise with a solution, a page of the app, and what is checked."""
    text, blocks = page.read_text(), blocks_of(page)
    assert text.startswith("# ")
    assert "**Claim" in text
    assert len(re.findall(r'^\?\?\? question "', text, re.MULTILINE)) == 1
    assert len(re.findall(r'^\?\?\? success "Solution"', text, re.MULTILINE)) == 1
    assert "**In the app**" in text
    assert any(isinstance(node, ast.Assert) for _, code in blocks for node in ast.walk(ast.parse(code)))
    assert any("chart(" in code or "scene(" in code or "gallery(" in code for _, code in blocks)
    assert all(len(line) <= 76 for _, code in blocks for line in code.splitlines())


def test_the_blocks_of_the_readme_are_python() -> None:
    blocks = blocks_of(HERE / "README.md")
    assert blocks
    for _, code in blocks:
        compile(code, "README.md", "exec")


def test_every_page_has_its_place() -> None:
    nav = (HERE / "mkdocs.yml").read_text().partition("\nnav:")[2]
    for page in PAGES:
        assert page.relative_to(HERE / "tutorials").as_posix() in nav


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_is_found_without_running_code(name: str) -> None:
    """mkdocstrings reads source files, so it does not find `pidlearn.metrics` and other short names of modules."""
    source, rest = _split(name)
    if source == HERE / "pidlearn/__init__.py":
        assert rest[0] in pidlearn.__all__
    elif rest:
        assert rest[0] in _names_in(source)


@pytest.mark.parametrize("cited", CITED_TESTS)
def test_a_cited_test_exists(cited: str) -> None:
    path, *names = cited.split("::")
    body = ast.parse((HERE / path).read_text()).body
    for name in names:
        (found,) = (node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name)
        body = found.body


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    monkeypatch.setattr(sys, "path", [str(HERE / "tutorials/_build/blocks"), *sys.path])
    module = ModuleType(f"page_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look their module up
    for options, code in blocks_of(page):
        assert 'session="' in options  # every page has one session
        exec(compile(code, page.name, "exec"), vars(module))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=lambda page: page.stem)
def test_a_notebook_has_the_blocks_and_the_text_of_its_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(HERE / "tutorials/_build"), *sys.path])
    monkeypatch.chdir(HERE)
    from notebook import notebook

    document = json.loads(notebook(page.read_text()))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    setup, *code = ["".join(cell["source"]) for cell in document["cells"] if cell["cell_type"] == "code"]
    compile(setup, "setup", "exec")
    for cell, (options, block) in zip(code, blocks_of(page), strict=True):
        magic = "" if 'result="text"' in options else "%%shown HTML\n" if "html" in options else "%%shown Markdown\n"
        assert cell == magic + block.strip("\n")
    text = "\n".join("".join(cell["source"]) for cell in document["cells"] if cell["cell_type"] == "markdown")
    assert text.startswith("# ")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"^(\?\?\?|!!!|--8<--|    \S)", prose, re.MULTILINE)
    assert [cell["id"] for cell in document["cells"]] == [*dict.fromkeys(cell["id"] for cell in document["cells"])]


def test_dead_links_of_the_built_site_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(HERE / "tutorials/_build"), *sys.path])
    from links import dead_links

    (tmp_path / "learn").mkdir()
    (tmp_path / "film.svg").touch()
    home = '<a href="learn/#part">a</a> <a href="https://example.org/b">b</a> <img src="film.svg"> <a href="#top">c</a>'
    (tmp_path / "index.html").write_text(home + '<a href="learn/#other">d</a>')
    (tmp_path / "learn/index.html").write_text('<h2 id="part">e</h2> <a href="../#no">f</a> <a href="../lost/">g</a>')
    assert dead_links(tmp_path) == [
        "index.html: learn/#other",
        "learn/index.html: ../#no",
        "learn/index.html: ../lost/",
    ]


def test_a_card_of_the_gallery_has_one_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(HERE / "tutorials/_build"), *sys.path])
    from gallery import cards

    file = SimpleNamespace(url_relative_to=lambda here: "../learn/tangent/")
    content = '<p><strong>Claim.</strong> See <a href="../break-it/">lesson 6</a>.</p><svg class="chart">x</svg>'
    page = SimpleNamespace(content=content, file=file, title="4. The loss")
    (card,) = [cards([page], None)]
    assert re.findall(r'href="([^"]*)"', card) == ["../learn/tangent/"]
    assert "See lesson 6." in card


def test_blocks_are_executed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second build executes nothing; a changed block, it and those before and after it in its session."""
    monkeypatch.setattr(sys, "path", [str(HERE / "tutorials/_build"), *sys.path])
    from cache import Cache

    ran: list[str] = []

    def run(code: str, session: str | None = None, **options: object) -> str:
        ran.append(code)
        if code == "raise":
            raise ValueError(code)
        return f"{session} {code}"

    def build(*blocks: tuple[str, str | None], state: str = "as it was") -> tuple[list[str], list[str]]:
        ran.clear()
        cache = Cache(run, tmp_path / "kept", state)
        outputs = [cache(code, session=session, id="") for code, session in blocks]
        cache.forget_others()
        return outputs, [*ran]

    page = [("a", "s"), ("b", "s"), ("alone", None), ("c", "s"), ("other", "z")]
    outputs, executed = build(*page)
    assert executed == ["a", "b", "alone", "c", "other"]
    assert build(*page) == (outputs, [])
    changed = [("a", "s"), ("B", "s"), ("alone", None), ("c", "s"), ("other", "z")]
    assert build(*changed)[1] == ["a", "B", "c"]
    assert build(*page)[1] == ["a", "b", "c"]  # what the last build did not use is forgotten
    assert build(*page, ("d", "s"))[1] == ["a", "b", "c", "d"]
    assert build(*page, state="changed")[1] == executed
    for _ in range(2):
        with pytest.raises(ValueError, match="raise"):
            build(("raise", "s"))


def test_what_outputs_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(HERE / "tutorials/_build"), *sys.path])
    from cache import FOLDERS, fingerprint

    assert all((HERE / folder).is_dir() for folder in FOLDERS)
    (tmp_path / "pidlearn" / "__pycache__").mkdir(parents=True)
    packages = ("torch", "numpy")  # not all of PACKAGES: tests run without those that build the site
    assert fingerprint(tmp_path, packages) != fingerprint(tmp_path, ("torch", "scipy"))
    hashes = [fingerprint(tmp_path, packages)]
    for name, counts in (("pidlearn/a.py", True), ("pidlearn/__pycache__/a.pyc", False), ("README.md", False)):
        (tmp_path / name).write_text("x")
        hashes.append(fingerprint(tmp_path, packages))
        assert (hashes[-1] != hashes[-2]) == counts


def test_the_gallery_has_the_first_chart_of_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(HERE / "tutorials/_build"), *sys.path])
    from gallery import cards

    def page(title: str, content: str) -> SimpleNamespace:
        file = SimpleNamespace(url_relative_to=lambda here: f"{here}/{title}")
        return SimpleNamespace(title=title, content=content, file=file)

    chart = '<svg class="chart" role="img"><g>{}</g></svg>'
    claim = "<p><strong>Claim.</strong>\nIt is <em>so</em>.</p>"
    theorem = claim.replace("Claim.</strong>", "Claim</strong> (Theorem 1).")
    assert cards([page("A", claim + chart)], "") == cards([page("A", theorem + chart)], "")
    pages = [page("A", claim + chart.format(1) + chart.format(2)), page("B", claim), page("C", chart.format(3))]
    assert cards(pages, "here") == (
        f'<figure>{chart.format(1)}<figcaption><a href="here/A">A</a><p>It is <em>so</em>.</p></figcaption></figure>\n'
        f'<figure>{chart.format(3)}<figcaption><a href="here/C">C</a></figcaption></figure>'
    )


def test_dots_are_means_over_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(HERE / "tutorials/_build/blocks"), *sys.path])
    from dots import by_seed, dots, ordered

    rows: dict[str, dict[str, Any]] = {
        "b/seed 0": {"error": {"1": 1.0}},
        "a, seed 1": {"error": {"1": 0.5}},
        "b/seed 2": {"error": {"1": 3.0}},
        "without": {"error": None},
    }
    errors = by_seed(rows, "error", "1")
    assert errors == {"b": [1.0, 3.0], "a": [0.5]}
    assert list(ordered(errors)) == ["a", "b"]
    side_by_side = dots({"left": errors, "right": errors}, "what it shows", line="a")
    below = dots({"above": errors, "below": {"c": [1.0]}}, "what it shows")
    for html, names in ((side_by_side, "ab"), (below, "abc")):
        assert html.startswith('<div class="scroll"><svg class="chart" role="img" aria-label="what it shows"')
        assert [name for name in "abc" if f">{name}<" in html] == list(names)
    wide, tall = (
        [float(size) for size in re.findall(r'(?:width|height)="([\d.]+)pt"', h)] for h in (side_by_side, below)
    )
    assert wide[1] < tall[1]


def _split(name: str) -> tuple[Path, list[str]]:
    """The source file of the longest prefix of a dotted name that is a module, and the rest of the name."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module = HERE.joinpath(*parts[:end])
        for source in (module.with_suffix(".py"), module / "__init__.py"):
            if source.is_file():
                return source, parts[end:]
    raise AssertionError(f"found no module for {name}")


def _names_in(source: Path) -> set[str]:
    """The names that a module defines or imports at its top level."""
    names: set[str] = set()
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names
