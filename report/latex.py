"""Rows of results.json as LaTeX tables (package booktabs)."""

from collections.abc import Iterable, Mapping

from groundwork.report.pages import NUMBERS, tables

_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def escaped(text: str) -> str:
    """Text as it is, whatever LaTeX would make of its characters."""
    return "".join(_ESCAPES.get(letter, letter) for letter in text)


def latex(rows: Iterable[Mapping[str, object]]) -> str:
    """All rows, one table per benchmark and metric."""
    return "\n".join(_table(title, lines) for title, lines in tables(rows).items())


def _table(title: str, lines: list[dict[str, str]]) -> str:
    columns = list(lines[0])
    shape = "".join("r" if column in NUMBERS else "l" for column in columns)
    body = [" & ".join(map(escaped, line.values())) + r" \\" for line in lines]
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\caption{{{escaped(title)}}}",
        rf"\begin{{tabular}}{{{shape}}}", r"\toprule",
        " & ".join(map(escaped, columns)) + r" \\", r"\midrule", *body, r"\bottomrule",
        r"\end{tabular}", r"\end{table}", "",
    ])  # fmt: skip
