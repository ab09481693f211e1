"""List the libraries in a site-packages folder: version, licence, home page, texts.

Run by the package's build; the list becomes /usr/share/doc/gpupool-agent/THIRD-PARTY. A library
of which nothing says under what licence it is fails the build: somebody has to look.

Source: Core metadata specifications (License-Expression, License, Classifier, Project-URL); PEP 639.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageMetadata
from pathlib import Path

OWN = "gpupool_agent-"
LICENCE_CHARACTERS_MAX = 80
"""A longer `License` is the whole text instead of a name."""
TEXTS = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "AUTHORS")


def main() -> None:
    """Print the list of what is in the folder that the first argument names, in the order of names."""
    folders = sorted(Path(sys.argv[1]).glob("*.dist-info"), key=lambda folder: folder.name.lower())
    sys.stdout.write("Libraries in /opt/gpupool-agent, unchanged but for tests, programs and stubs left out.\n")
    for folder in folders:
        if not folder.name.startswith(OWN):
            sys.stdout.write("\n" + "\n".join(entry(folder)) + "\n")


def entry(folder: Path) -> Iterator[str]:
    """The lines about the library of a .dist-info folder. Raises ValueError if nothing in there names a licence."""
    metadata = Distribution.at(folder).metadata
    texts = sorted(each for each in folder.rglob("*") if each.is_file() and each.name.upper().startswith(TEXTS))
    yield f"{metadata['Name']} {metadata['Version']}"
    yield f"  Licence: {licence(metadata, texts)}"
    if page := home_page(metadata):
        yield f"  Home page: {page}"
    for text in texts:
        yield f"  Text: {text.relative_to(folder.parent)}"


def licence(metadata: PackageMetadata, texts: Sequence[Path]) -> str:
    """How its authors name its licence: in the metadata, else atop the text. Raises ValueError if they do not."""
    if expression := _field(metadata, "License-Expression"):
        return expression
    named = _field(metadata, "License")
    if named and "\n" not in named and len(named) <= LICENCE_CHARACTERS_MAX and named != "UNKNOWN":
        return named
    classifiers = metadata.get_all("Classifier") or ()
    if classified := [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License :: ")]:
        return ", ".join(classified)
    for text in texts:
        title = text.read_text().lstrip().partition("\n")[0]
        if "licen" in title.lower() and len(title) <= LICENCE_CHARACTERS_MAX:
            return title
    raise ValueError(f"{metadata['Name']}: neither its metadata nor its texts name a licence")


def home_page(metadata: PackageMetadata) -> str:
    """Where it lives; empty if it does not say."""
    links = dict(each.split(", ", 1) for each in metadata.get_all("Project-URL") or () if ", " in each)
    by_label = {label.lower(): url for label, url in links.items()}
    known = (by_label.get(label) for label in ("homepage", "home", "source", "source code", "repository", "github"))
    return _field(metadata, "Home-page") or next(filter(None, known), "") or next(iter(links.values()), "")


def _field(metadata: PackageMetadata, name: str) -> str:
    """A field that stands there once; empty if it does not."""
    return next(iter(metadata.get_all(name) or ()), "")


if __name__ == "__main__":
    main()
