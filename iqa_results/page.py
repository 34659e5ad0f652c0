"""Write HTML pages that need no network, from Jinja2 templates; every value is escaped in them."""
import base64
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_runtime.files import write_text

if TYPE_CHECKING:  # matplotlib is slow to import
    from matplotlib.figure import Figure


def rendered(template: Path, **values) -> str:
    """Return the page that a template makes of values."""
    import jinja2  # slow to import
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(template.parent), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template.name).render(**values)


def write_page(path: str | Path, template: Path, **values) -> None:
    """Write a page from a template, NAME.html, and its script beside it, NAME.js.

    The script is the only one that may run: its hash is in the page's policy.
    """
    from markupsafe import Markup
    script = template.with_suffix('.js').read_text(encoding='utf-8')
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    write_text(path, rendered(template, **values, script=Markup(script), script_hash=script_hash))


def data_uri(kind: str, content: bytes) -> str:
    """Return bytes of a media type as a data URI."""
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'


def svg_uri(figure: 'Figure') -> str:
    """Return a figure as a data URI of its SVG; the same each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='svg', metadata={'Date': None})
    return data_uri('image/svg+xml', buffer.getvalue())
