"""Hook of MkDocs: write a link to a file outside docs/, which only a code host can follow, as the path of the file."""
import re


def on_page_markdown(markdown: str, page, **_) -> str:
    """Return the Markdown of a page, with `text (path)` for such links."""
    up = '../' * (page.file.src_uri.count('/') + 1)
    return re.sub(rf'(?<!!)\[([^]]+)\]\({re.escape(up)}([^)]+)\)', r'\1 (`\2`)', markdown)
