"""The part of the report on defect types: words, figures, confusion, colours over images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.metrics.defect_types import FIGURES, METRICS, NORMAL
from promptmad_jax.evaluation.zero_shot_evaluate import FILTERED, VOCABULARIES
from promptmad_jax.reporting.pages.page import cell, escape, figure, heading, table
from promptmad_jax.reporting.pages.pictures import encode
from promptmad_jax.reporting.tables import TYPE_HEADINGS, percent
from promptmad_jax.reporting.type_pictures import Colour, colour, type_examples

_NOTE = (
    "By pixel, each state against the rest, in percent; the mean over the states that a product "
    "has, then over the products. “defects” leaves the normal state out."
)
_MATRIX_NOTE = (
    "Pixels of all products, each product with its own types: the share of a true state (row) that "
    "was seen as another (column), in percent."
)


@dataclass(frozen=True)
class TypeView:
    """The pictures of one class as finished HTML."""

    name: str
    rows: tuple[str, ...]


def type_view(class_maps: ClassMaps) -> TypeView:
    """Picks images of a class and keeps them as thumbnails alone."""
    rows = []
    for example in type_examples(class_maps):
        figures = "".join(
            figure(caption, encode(picture), example.filename)
            for caption, picture in example.pictures.items()
        )
        rows.append(
            f'<div class="row"><p class="who"><b>{escape(example.defect_type)}</b> '
            f"<code>{escape(example.filename)}</code>"
            f'<span class="reason">seen as {escape(example.seen)}</span></p>'
            f'<div class="pictures">{figures}</div></div>'
        )
    return TypeView(class_maps.class_name, tuple(rows))


def types_html(multi_type: Mapping, views: Sequence[TypeView]) -> str:
    """What metrics.json says of the types, and the pictures."""
    blocks = {name: multi_type[name] for name in VOCABULARIES if name in multi_type}
    parts = [_legend(multi_type["words"]), f'<p class="soft">{_NOTE}</p>', _macro(blocks)]
    parts.append(_by_type(blocks))
    if FILTERED in blocks:
        parts += [f'<p class="soft">{_MATRIX_NOTE}</p>', _matrix(blocks[FILTERED]["confusion"])]
    for view in views:
        if view.rows:
            parts += [f"<h4>{escape(view.name)}</h4>", *view.rows]
    return "".join(parts)


def _swatch(rgb: Colour) -> str:
    style = f"display:inline-block;width:.8em;height:.8em;background:rgb{rgb}"
    return f'<i aria-hidden="true" style="{style}"></i>'


def _legend(words: Mapping[str, str]) -> str:
    """A colour a type, and the word that stood for it in the prompts."""
    items = []
    for number, (name, word) in enumerate(words.items(), start=1):
        said = "" if word == name else f" (“{escape(word)}”)"
        items.append(f"<li>{_swatch(colour(number))} {escape(name)}{said}</li>")
    note = "<p>Types, and in brackets the words of the prompts where they are others:</p>"
    style = "columns:12em auto;list-style:none;padding:0"
    return f'{note}<ul class="types-legend" style="{style}">{"".join(items)}</ul>'


def _macro(blocks: Mapping[str, Mapping]) -> str:
    head = "".join(heading(word, False) for word in ("vocabulary", *TYPE_HEADINGS.values()))
    rows = []
    for name, block in blocks.items():
        cells = "".join(cell(percent(block["mean"][key]), block["mean"][key]) for key in METRICS)
        rows.append(
            f'<tr><th scope="row" title="{escape(VOCABULARIES[name])}">{name}</th>{cells}</tr>'
        )
    return table(f"<tr>{head}</tr>", rows)


def _by_type(blocks: Mapping[str, Mapping]) -> str:
    columns = [(name, key) for name in blocks for key in FIGURES]
    titles = (f"{TYPE_HEADINGS[key]}, {name}" for name, key in columns)
    head = "".join(heading(word, True) for word in ("state", *titles))
    # A state of which no product has a pixel has no figures.
    names = dict.fromkeys(
        state
        for block in blocks.values()
        for state, values in block["types"].items()
        if values["defined_classes"]
    )
    rows = []
    for state in names:
        cells = []
        for name, key in columns:
            value = blocks[name]["types"].get(state, {}).get(key)
            cells.append(cell(percent(value), value))
        rows.append(f'<tr><th scope="row">{escape(state)}</th>{"".join(cells)}</tr>')
    return table(f"<tr>{head}</tr>", rows, sortable=True)


def _matrix(confusion: Mapping) -> str:
    """True states down, seen ones across; the darker the more."""
    names, pixels = confusion["names"], confusion["pixels"]
    head = "".join(heading(escape(word), False) for word in ("true state", *names))
    rows = []
    for name, counts in zip(names, pixels, strict=True):
        total = sum(counts)
        cells = []
        for seen, count in zip(names, counts, strict=True):
            share = count / total if total else None
            strength = 0 if share is None else round(0.75 * share, 3)
            title = f"{name} seen as {seen}: {count} pixels"
            value = "" if share is None else share
            style = f"background:rgba(70,150,255,{strength})"
            cells.append(
                f'<td data-value="{value}" title="{escape(title)}" style="{style}">'
                f"{percent(share)}</td>"
            )
        label = escape(name) if name != NORMAL else f"<i>{NORMAL}</i>"
        rows.append(f'<tr><th scope="row">{label}</th>{"".join(cells)}</tr>')
    return table(f"<tr>{head}</tr>", rows)
