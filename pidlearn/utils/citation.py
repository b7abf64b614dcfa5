"""How to cite the paper and this software; CITATION.cff says the same to machines."""

from __future__ import annotations

from importlib.metadata import version

__all__ = ["citation"]


def citation() -> str:
    """Return two BibTeX entries: the paper whose method this is, and this software in the installed version."""
    return f"""@article{{tee2024pid,
  title = {{Physics Informed Distillation for Diffusion Models}},
  author = {{Tee, Joshua Tian Jin and Zhang, Kang and Yoon, Hee Suk and Gowda, Dhananjaya Nagaraja
    and Kim, Chanwoo and Yoo, Chang D.}},
  journal = {{Transactions on Machine Learning Research}},
  year = {{2024}},
  url = {{https://arxiv.org/abs/2411.08378}}
}}

@software{{pidlearn,
  title = {{pidlearn: physics-informed distillation of diffusion models}},
  author = {{{{The pidlearn authors}}}},
  version = {{{version("pidlearn")}}}
}}
"""
