"""Takes the pictures of README and docs/status-page.md anew, of made-up figures.

    python -m tests.page.pictures

Needs what `make page-test` sets up.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # as pytest does, by pyproject.toml

from browser import browser
from page_facts import broken, page_facts
from page_server import page_server
from PIL import Image

IMAGES = Path(__file__).parents[2] / "docs" / "images"
COLOURS = 96
PICTURES = (
    ("status-light.png", page_facts, 1280, 1250, False),
    ("status-dark-phone.png", broken, 360, 1180, True),
)
"""File, what is shown, width and height in CSS pixels, whether in dark colours."""


def main() -> int:
    for name, facts, width, height, is_dark in PICTURES:
        with page_server(facts()) as server, browser() as window:
            window.open(server.url, width=width, is_dark=is_dark)
            window.picture(IMAGES / name, height=height)
        # A third of the bytes, and nobody sees it.
        with Image.open(IMAGES / name) as picture:
            picture.quantize(COLOURS).save(IMAGES / name, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
