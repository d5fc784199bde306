"""The shell that all pages share, and the small pieces of HTML they are made of."""

import html
import importlib.resources
import string
from collections.abc import Iterable, Mapping
from pathlib import Path

from promptmad_jax.runtime.errors import UserError

PAGE = "index.html"
TIMES = "\N{MULTIPLICATION SIGN}"
escape = html.escape
_PARTS = ("page.html", "page.css", "page.js")


def make_page(title: str, body: str) -> str:
    """The whole document: style and script are inside, nothing is loaded."""
    folder = importlib.resources.files("promptmad_jax.reporting.pages")
    parts = {name: (folder / name).read_text(encoding="utf-8") for name in _PARTS}
    return string.Template(parts["page.html"]).substitute(
        title=escape(title), style=parts["page.css"], script=parts["page.js"], body=body
    )


def write_page(directory: Path, page: str) -> Path:
    """Writes `index.html`.

    Raises:
      UserError: where it cannot be written.
    """
    path = directory / PAGE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path}: the page cannot be written ({error.strerror}); choose another output folder"
        ) from error
    return path


def facts(values: Mapping[str, object]) -> str:
    """A list of names and values."""
    items = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in values.items()
    )
    return f'<dl class="facts">{"".join(items)}</dl>'


def section(identifier: str, title: str, *parts: str) -> str:
    """A titled part of the page; nothing where all parts are empty."""
    inner = "".join(parts)
    if not inner:
        return ""
    return f'<section id="{identifier}"><h2>{escape(title)}</h2>{inner}</section>'


def folded(title: str, inner: str) -> str:
    """A part that opens on a click."""
    return f'<details class="card"><summary>{escape(title)}</summary>{inner}</details>'


def cell(text: str, value: object = "", style: str = "", title: str = "") -> str:
    """A cell of a table: HTML, the value to sort by, a class and a tooltip."""
    extra = f' class="{style}"' if style else ""
    extra += f' title="{escape(title)}"' if title else ""
    shown = "" if value is None else escape(str(value))
    return f'<td data-value="{shown}"{extra}>{text}</td>'


def table(head: str, body: Iterable[str], foot: str = "", sortable: bool = False) -> str:
    """A table in a card that scrolls sideways where it is too wide; the first column
    sorts by letters, the others by numbers."""
    kind = ' class="sortable"' if sortable else ""
    foot = f"<tfoot>{foot}</tfoot>" if foot else ""
    return (
        f'<div class="card scroll"><table{kind}><thead>{head}</thead>'
        f"<tbody>{''.join(body)}</tbody>{foot}</table></div>"
    )


def heading(word: str, sortable: bool, title: str = "") -> str:
    """A column's heading; a button where it sorts."""
    hint = f' title="{escape(title)}"' if title else ""
    inner = f'<button type="button">{word}</button>' if sortable else word
    return f'<th scope="col"{hint}>{inner}</th>'


def figure(caption: str, uri: str, described: str) -> str:
    """A picture with its caption."""
    return (
        f'<figure><img decoding="async" alt="{escape(caption)} of {escape(described)}" '
        f'src="{uri}"><figcaption>{escape(caption)}</figcaption></figure>'
    )
