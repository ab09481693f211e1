"""Complete the SBOM that cyclonedx-py writes of the installed package: hashes, native code, what is vendored.

`sbom.py SBOM WHEELS ROOT` prints the completed one: SBOM as cyclonedx-py left it, WHEELS the folder of wheels that the
package was built from, ROOT the unpacked package.

1. Each library carries the SHA-256 of its wheel, one of those that requirements/run.lock names.
2. A library whose wheel lists the native code inside it (PEP 770) refers to that list, as a path in the package.
3. TON's emulator, vendored, is a component like the others.
4. Where the metadata names no licence as cyclonedx-py looks for it, that of THIRD-PARTY stands.
5. It is valid, and nothing in it speaks of the machine that built it.

Source: CycloneDX 1.6, JSON reference; PEP 770.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

EMULATOR = "opt/gpupool-agent/lib/python3.11/site-packages/contracts/devchain/vendor/emulator.wasm.xz"

THIRD_PARTY = "usr/share/doc/gpupool-agent/THIRD-PARTY"

Component = dict[str, Any]


def main() -> None:
    """Print the completed SBOM."""
    found, wheels, root = (Path(each) for each in sys.argv[1:4])
    text = json.dumps(completed(json.loads(found.read_text()), wheels, root), indent=2, sort_keys=True) + "\n"
    for trace in (*(str(each.absolute()) for each in (found, wheels, root)), "file://"):
        if trace in text:
            raise ValueError(f"{found}: names the machine that built it: {trace}")
    _require_valid(text)
    sys.stdout.write(text)


def completed(sbom: dict[str, Any], wheels: Path, root: Path) -> dict[str, Any]:
    """The SBOM with all that rules 1 to 4 ask for. Raises ValueError for a library without a wheel."""
    named = dict(re.findall(r"^(\S+) \S+\n  Licence: (.+)$", (root / THIRD_PARTY).read_text(), re.MULTILINE))
    by_name = {path.name.partition("-")[0].lower(): path for path in wheels.glob("*.whl")}
    components = []
    for component in sbom["components"]:
        wheel = by_name.get(component["name"].lower().replace("-", "_").replace(".", "_"))
        if wheel is None:
            raise ValueError(f"{component['name']}: is in the package, and no wheel of it is in {wheels}")
        lists = sorted(root.glob(f"opt/**/{wheel.name.partition('-')[0]}-*.dist-info/sboms/*.json"))
        licences = component.get("licenses") or [{"license": {"name": named[component["name"]]}}]
        components.append(
            {**_with_sources(component, wheel, [path.relative_to(root) for path in lists]), "licenses": licences}
        )
    return {**sbom, "components": [*components, _emulator(root / EMULATOR)]}


def _with_sources(component: Component, wheel: Path, lists: list[Path]) -> Component:
    links = [
        *component.get("externalReferences", ()),
        *({"type": "bom", "url": str(path), "comment": "native code in it, as its authors list it"} for path in lists),
    ]
    return {**component, "hashes": [_sha256(wheel)], **({"externalReferences": links} if links else {})}


def _emulator(file: Path) -> Component:
    """Vendored: contracts/devchain/vendor/README.md."""
    return {
        "bom-ref": "ton-emulator",
        "type": "library",
        "name": "@ton/sandbox",
        "version": "0.41.0",
        "description": "TON's transaction and TVM emulator in WebAssembly; dry runs and dev networks use it",
        "purl": "pkg:npm/%40ton/sandbox@0.41.0",
        "hashes": [_sha256(file)],
        "licenses": [{"license": {"id": "MIT"}}, {"license": {"id": "LGPL-2.0-only"}}],
    }


def _require_valid(text: str) -> None:
    """Raise ValueError unless the text is CycloneDX 1.6, taken strictly."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"the completed SBOM is not valid: {error}")


def _sha256(path: Path) -> dict[str, str]:
    return {"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}


if __name__ == "__main__":
    main()
