"""The lists of what the package holds: licences and SBOM."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from email.message import Message
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "packaging" / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


third_party, sbom = _tool("third_party"), _tool("sbom")


def _metadata(**fields: str) -> Message:
    message = Message()
    message["Name"] = "some"
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"License_Expression": "MIT", "License": "other"}, "MIT"),
        ({"License": "BSD"}, "BSD"),
        ({"License": "UNKNOWN", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT License"),
        ({"License": "a whole\ntext", "Classifier": "License :: OSI Approved :: ISC License"}, "ISC License"),
    ],
)
def test_licence_is_what_the_metadata_names(fields: dict[str, str], expected: str) -> None:
    assert third_party.licence(_metadata(**fields), []) == expected


def test_licence_is_the_title_of_the_text_where_the_metadata_names_none(tmp_path: Path) -> None:
    text = tmp_path / "LICENSE"
    text.write_text("\nThe MIT License (MIT)\n\nCopyright\n")
    assert third_party.licence(_metadata(), [text]) == "The MIT License (MIT)"


def test_library_without_a_licence_is_an_error(tmp_path: Path) -> None:
    text = tmp_path / "NOTICE"
    text.write_text("made by somebody\n")
    with pytest.raises(ValueError, match="some: neither"):
        third_party.licence(_metadata(), [text])


def test_sbom_names_wheels_native_code_and_the_emulator(tmp_path: Path) -> None:
    wheels, root = tmp_path / "wheels", tmp_path / "root"
    wheels.mkdir()
    (wheels / "py_some-1.0-py3-none-any.whl").write_bytes(b"wheel")
    listed = root / "opt/gpupool-agent/lib/python3.11/site-packages/py_some-1.0.dist-info/sboms/rust.cyclonedx.json"
    for path in (listed, root / sbom.EMULATOR, root / sbom.THIRD_PARTY):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    (root / sbom.THIRD_PARTY).write_text("Libraries\n\nPy-Some 1.0\n  Licence: The MIT License\n")
    made = sbom.completed({"components": [{"name": "Py-Some", "version": "1.0"}]}, wheels, root)
    library, emulator = made["components"]
    assert library["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"wheel").hexdigest()}]
    assert library["licenses"] == [{"license": {"name": "The MIT License"}}]
    assert [each["url"] for each in library["externalReferences"]] == [str(listed.relative_to(root))]
    assert emulator["purl"] == "pkg:npm/%40ton/sandbox@0.41.0"


def test_sbom_of_a_library_without_a_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / sbom.THIRD_PARTY).parent.mkdir(parents=True)
    (tmp_path / sbom.THIRD_PARTY).write_text("")
    with pytest.raises(ValueError, match="stray: is in the package"):
        sbom.completed({"components": [{"name": "stray"}]}, tmp_path, tmp_path)


def test_emulator_is_of_the_version_that_is_vendored() -> None:
    readme = (ROOT / "contracts" / "devchain" / "vendor" / "README.md").read_text()
    versions = re.findall(r"npm pack @ton/sandbox@(\S+)", readme)
    source = (ROOT / "tests" / "packaging" / "tools" / "sbom.py").read_text()
    assert [f'"version": "{version}"' in source for version in versions] == [True]
