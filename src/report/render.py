"""One self-contained HTML file from the template, style sheet and scripts in `static/`, and the data they show."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.artifacts.io import to_plain

FOLDER = Path(__file__).parent / "static"
SCRIPTS = ("format.js", "svg.js", "lookup.js", "explorer.js", "sections.js", "main.js")  # in the order they run

RUN_NAME = b'<strong id="run-name">'  # which every page has


def render(data: Mapping[str, Any], *, title: str) -> str:
    """The page: `data` as JSON inside it, and a policy that admits only its own style, script and embedded pictures.

    Names in `data` come from users' files: the scripts put them into the page as text only.
    """
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    script = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    sources = f"style-src {_digest(style)}; script-src {_digest(script)}; img-src data:"
    slots = {
        "POLICY": f"default-src 'none'; {sources}; base-uri 'none'",
        "TITLE": html.escape(title.encode("utf-8", "replace").decode("utf-8")),  # a path may hold stray bytes
        "STYLE": style,
        "DATA": embed_json(data),
        "SCRIPT": script,
    }
    template = (FOLDER / "page.html").read_text(encoding="utf-8")
    return re.sub("@([A-Z]+)@", lambda slot: slots[slot[1]], template)


def is_page(path: Path) -> bool:
    """Whether a file is a page that `render` made."""
    return RUN_NAME in path.read_bytes()


def embed_json(data: Any) -> str:
    """JSON that cannot end the script element around it: <, > and & are escaped, and so is all but ASCII.

    NumPy's types are taken as they are; a number that is not finite becomes null.
    """
    text = json.dumps(to_plain(data), separators=(",", ":"), allow_nan=False)
    return re.sub("[<>&]", lambda sign: f"\\u{ord(sign[0]):04x}", text)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}'"
