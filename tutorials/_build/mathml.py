"""A Markdown extension: formulas as MathML, which browsers show without a script from another server."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.treeprocessors import Treeprocessor

__all__ = ["MathML"]


class MathML(Extension):
    """Replace the LaTeX that `pymdownx.arithmatex` marks."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - the name that Markdown calls
        """Register the replacement after "inline" (priority 20), which marks formulas within a line."""
        md.treeprocessors.register(Formulas(md), "mathml", 15)


class Formulas(Treeprocessor):
    """The replacement. A formula that stands alone is in a div of its own, which can scroll on a narrow screen."""

    def run(self, root: Element) -> None:
        """Convert all formulas of a document."""
        for element in root.iter():
            if element.get("class") == "arithmatex" and element.text:
                kind, latex = element.text[:2], element.text[2:-2]  # \( ... \) or \[ ... \]
                is_block = kind == "\\["
                element.attrib = {"class": "formula"} if is_block else {}
                element.text = self.md.htmlStash.store(convert(latex, display="block" if is_block else "inline"))
