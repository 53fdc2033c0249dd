"""Turn the text of entries into HTML and script files, safely escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from oc_residual_gym.tasks import in_order

TEMPLATES = Path(__file__).parent / "templates"


def environment() -> Environment:
    """The templates, with all values escaped."""
    loader = FileSystemLoader(TEMPLATES)
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters |= {function.__name__: function for function in (percent, interval, fixed, by_task, web_link)}
    return templates


def percent(rate: float) -> str:
    """A rate in percent, as in "87.2"."""
    return f"{100 * rate:.1f}"


def interval(low: float, high: float) -> str:
    """An interval in percent, as in "84.1 to 89.9"."""
    return f"{percent(low)} to {percent(high)}"


def fixed(value: float | None, digits: int) -> str:
    """A number with ``digits`` digits after the point; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def by_task(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Tasks and their values, in the package's order of tasks."""
    return [(task, values[task]) for task in in_order(values)]


def web_link(address: str | None) -> str | None:
    """``address`` if it is that of a web page; None for any other kind (javascript:, data:, file:)."""
    try:
        parts = urlsplit(address or "")
    except ValueError:  # a port that is not a number, a broken IPv6 host
        return None
    return address if parts.scheme in ("http", "https") and parts.netloc else None


def script(name: str, content: Any) -> str:
    """A script file that stores ``content`` under ``name`` for the site's own scripts.

    Data are scripts because pages opened as files may not fetch anything else. Everything but ASCII is escaped, and so
    is "<".
    """
    text, key = (json.dumps(value, allow_nan=False).replace("<", "\\u003c") for value in (content, name))
    return f"(window.boardData ??= {{}})[{key}] = {text};\n"


def from_markdown(text: str, linked: tuple[str, ...]) -> Markup:
    """Convert a Markdown page to HTML, without its first heading; raw HTML in it is shown as text.

    Args:
        text: the page in Markdown.
        linked: relative addresses that also exist on the site. Other relative links lose their address, because their
            targets exist in the repository only.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    if tokens and tokens[0].tag == "h1":
        del tokens[:3]  # opening, text, closing
    for token in tokens:
        for child in token.children or ():
            address = str(child.attrGet("href") or "")
            if child.type == "link_open" and not web_link(address) and address not in linked:
                child.tag, child.attrs = "span", {"class": "file"}
        open_links = [child for child in token.children or () if child.type in ("link_open", "link_close")]
        for opening, closing in zip(open_links[::2], open_links[1::2], strict=True):
            closing.tag = opening.tag
    return Markup(parser.renderer.render(tokens, parser.options, {}))
