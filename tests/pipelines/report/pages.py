"""Read a page back: its tables, headings and attributes, with the parser of the standard library."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "line", "circle", "rect", "polyline", "br", "wbr"}


class Page(HTMLParser):
    """The parts of a page that tests compare; `tables` has rows of cells by the id of the table."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.values: dict[str, list[list[float]]] = {}  # what the `data` elements of each row hold
        self.bdi: list[str] = []  # ids and names
        self.words = ""
        self.open: list[str] = []
        self._table = ""
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.tags.append((tag, known))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._table = known["id"] or ""
            self.tables[self._table], self.values[self._table] = [], []
        elif tag == "tr":
            self.tables[self._table].append([])
            self.values[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
        elif tag == "data" and "table" in self.open:
            self.values[self._table][-1].append(float(known["value"] or ""))
        elif tag == "bdi":
            self.bdi.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open.pop() == tag, f"{tag} is closed out of order"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data
        if "title" in self.open:
            return
        if "td" in self.open or "th" in self.open:
            self.tables[self._table][-1][-1] += data.strip()
        if "bdi" in self.open:
            self.bdi[-1] += data

    def row(self, table: str, first: str) -> tuple[list[str], list[float]]:
        """Return the cells and the values of the first row that a text names, in its first or second cell."""
        place = next(i for i, cells in enumerate(self.tables[table]) if first in cells[:2])
        return self.tables[table][place], self.values[table][place]
