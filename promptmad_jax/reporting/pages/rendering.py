"""Renders the templates of the HTML pages and writes the result."""

import functools
import json
from collections.abc import Mapping

import jinja2
from etils import epath
from markupsafe import Markup

from promptmad_jax.reporting.decisions import interval_words, rounded
from promptmad_jax.reporting.gallery import verdict
from promptmad_jax.reporting.meanings import MEANINGS
from promptmad_jax.reporting.tables import (
    HEADINGS,
    HEADLINES,
    TYPE_HEADINGS,
    explain_undefined,
    percent,
)
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_text_atomic

PAGE = "index.html"
TIMES = "\N{MULTIPLICATION SIGN}"
# How many colours page.css has for series and runs.
COLOURS = 8
# Differences below this, in points, are not visible at one decimal.
VISIBLE = 0.05


def write_page(directory: epath.PathLike, template: str, **content: object) -> epath.Path:
    """Writes `index.html`, which loads nothing: style, script and pictures are inside.

    Raises:
      UserError: if the page cannot be written.
    """
    path = epath.Path(directory) / PAGE
    text = _environment().get_template(template).render(content)
    try:
        write_text_atomic(path, text)
    except OSError as error:
        raise UserError(
            f"{path}: the page cannot be written ({error.strerror}); choose another output folder"
        ) from error
    return path


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("promptmad_jax.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "COLOURS": COLOURS,
        "HEADINGS": HEADINGS,
        "HEADLINES": HEADLINES,
        "MEANINGS": MEANINGS,
        "TYPE_HEADINGS": TYPE_HEADINGS,
        "zip": zip,
    }
    environment.filters |= {
        "abbr": abbreviation,
        "decimal": lambda value: "-" if value is None else f"{value:.1f}",
        "heading": HEADINGS.__getitem__,
        "interval": interval_words,
        "percent": percent,
        "plain": plain,
        "reasons": explain_undefined,
        "rounded": rounded,
        "sentence": lambda words: words[:1].upper() + words[1:],
        "signed": signed,
        "span": span,
        "verdict": verdict,
    }
    return environment


def abbreviation(metric: str) -> Markup:
    """The heading of a metric, with its meaning as a hint."""
    return Markup('<abbr title="{}">{}</abbr>').format(MEANINGS[metric], HEADINGS[metric])


def signed(points: float) -> str:
    """Formats a difference with its sign and one decimal, "=" where that would be zero."""
    return "=" if abs(points) < VISIBLE else f"{points:+.1f}"


def span(interval: tuple[float, float]) -> str:
    """Formats the ends of an interval of differences."""
    low, high = ("0.0" if abs(end) < VISIBLE else f"{end:+.1f}" for end in interval)
    return f"{low} to {high}"


def plain(value: object) -> str:
    """Formats a setting: groups as `name: value; ...`, floats with six digits."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {plain(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "(empty)" if value == "" else str(value)
