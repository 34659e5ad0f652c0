"""Write HTML pages that need no network, from Jinja2 templates; every value is escaped in them."""
import base64
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_results.charts import AXES
from iqa_runtime.files import write_text

if TYPE_CHECKING:  # matplotlib is slow to import
    from matplotlib.figure import Figure

FOLDER = Path(__file__).parent / 'templates'


def rendered(template: Path, **values) -> str:
    """Return the page that a template, NAME.html, makes of values, with the script NAME.js beside it, if there is one.

    Templates extend those of this room, page.html and tables.html. The script is the only one that may run: its hash
    is in the page's policy.
    """
    import jinja2  # slow to import
    from markupsafe import Markup
    file = template.with_suffix('.js')
    script = file.read_text(encoding='utf-8') if file.is_file() else ''
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader([template.parent, FOLDER]), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template.name).render(**values, script=Markup(script), script_hash=script_hash)


def write_page(path: str | Path, template: Path, **values) -> None:
    """Write the page that `rendered` returns."""
    write_text(path, rendered(template, **values))


def data_uri(kind: str, content: bytes) -> str:
    """Return bytes of a media type as a data URI."""
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'


def svg_uri(figure: 'Figure') -> str:
    """Return a figure as a data URI of its SVG; the same each time."""
    import matplotlib
    buffer = io.BytesIO()
    with matplotlib.rc_context(AXES):
        figure.savefig(buffer, format='svg', metadata={'Date': None})
    return data_uri('image/svg+xml', buffer.getvalue())
