"""`gpupool attest collateral`: fetched over HTTPS, kept, listed, carried in a bundle; each failure in one line."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path

import pytest
import trio
from attest_place import NOW, Place, make_place, run_json
from pcs_server import Reply, ServerTls, Site, serving

from agent.cli import main
from attestation.collateral import Collateral

DAY_S = 86_400
FMSPC = b"SWTDX\0".hex()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return make_place(tmp_path, monkeypatch)


@pytest.fixture
def tls(tmp_path: Path) -> ServerTls:
    return ServerTls.make(tmp_path)


def site(place: Place) -> Site:
    """A PCCS that has what the software platform needs."""
    collateral = Collateral.from_json((place / "collateral.json").read_bytes())
    held = {("platform", "standard"): collateral, ("platform", "early"): collateral}
    return Site(held, FMSPC.upper(), is_pccs=True, sends_hex=True)


async def fetch(place: Place, tls: ServerTls, served: Site, *more: str) -> int:
    """Run the command beside a server."""
    async with serving(served, tls) as service:
        arguments = ["attest", "collateral", "fetch", str(place / "quote.bin"), "--root", str(place / "root.der")]
        arguments += ["--url", service.base_url, "--ca-file", str(tls.ca_file), *more]
        return await trio.to_thread.run_sync(main, arguments)


def store(place: Place, verb: str, *more: str) -> list[str]:
    return ["attest", "collateral", verb, *more, "--dir", str(place / "store"), "--root", str(place / "root.der")]


def bundle_of(collateral: bytes, update: str = "standard") -> bytes:
    return b'{"update":"%b","collateral":%b}\n' % (update.encode(), collateral)


async def test_what_is_fetched_can_be_written_to_a_file(
    place: Place, tls: ServerTls, capsys: pytest.CaptureFixture[str]
) -> None:
    out = place / "fetched.json"
    assert await fetch(place, tls, site(place), "--out", str(out), "--update", "early", "--json") == 0
    assert (
        Collateral.from_json(out.read_bytes()).digest
        == Collateral.from_json((place / "collateral.json").read_bytes()).digest
    )
    output = capsys.readouterr()
    value = json.loads(output.out)
    assert (value["file"], value["fmspc"], value["ca"], value["update"]) == (str(out), FMSPC, "platform", "early")
    assert output.err == f"gpupool: fetching collateral of FMSPC {FMSPC}, platform CA, early update\n"
    assert main(place.verify(collateral="fetched.json")) == 0


async def test_what_is_fetched_is_kept_and_listed(
    place: Place, tls: ServerTls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await fetch(place, tls, site(place), "--dir", str(place / "store")) == 0
    capsys.readouterr()
    code, value = run_json(capsys, store(place, "list"))
    (held,) = value["collateral"]
    assert (code, held["fmspc"], held["update"], held["valid_until"]) == (0, FMSPC, "standard", "2037-01-12T08:00:00Z")
    assert (place / "store" / f"{held['digest']}.json").is_file()
    assert main(store(place, "list")) == 0
    assert f"digest                  {held['digest']}" in capsys.readouterr().out


@pytest.mark.parametrize("update", ["tcb", "identity", "pckcrl", "rootcacrl"])
async def test_a_service_that_refuses_is_named(
    place: Place, tls: ServerTls, capsys: pytest.CaptureFixture[str], update: str
) -> None:
    served = site(place)
    served.script[update] = deque([Reply(status=404)])
    assert await fetch(place, tls, served, "--out", str(place / "fetched.json")) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[1].startswith("gpupool: https://127.0.0.1:")
    assert "check the FMSPC" in said[1]
    assert not (place / "fetched.json").exists()


async def test_what_does_not_verify_is_not_written(
    place: Place, tls: ServerTls, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: float(NOW + 3651 * DAY_S))
    for target in (["--out", str(place / "fetched.json")], ["--dir", str(place / "store")]):
        assert await fetch(place, tls, site(place), *target, "--json") == 1
        value = json.loads(capsys.readouterr().out)
        assert value["fault"] == "collateral"
        assert value["error"].endswith("_expired")
    assert not (place / "fetched.json").exists()
    assert not (place / "store").exists()


def test_a_bundle_goes_from_one_store_to_another(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    first = place.write("first.bundle", bundle_of((place / "collateral.json").read_bytes(), "early"))
    assert run_json(capsys, store(place, "import", first)) == (
        0,
        {"kept": [{"fmspc": FMSPC, "ca": "platform", "update": "early"}], "refused": []},
    )
    again = str(place / "again.bundle")
    assert run_json(capsys, store(place, "export", "--out", again)) == (0, {"file": again, "entries": 1})
    assert json.loads(Path(again).read_bytes()) == json.loads(Path(first).read_bytes())
    assert main(store(place, "import", again)) == 0
    assert capsys.readouterr().out == f"kept     FMSPC {FMSPC}, platform CA, early update\n"


def test_single_collateral_is_imported_for_the_channel_that_is_said(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, update in ([], "standard"), (["--update", "early"], "early"):
        code, value = run_json(capsys, store(place, "import", str(place / "collateral.json"), *more))
        assert (code, value["kept"]) == (0, [{"fmspc": FMSPC, "ca": "platform", "update": update}])
    assert main(store(place, "export", "--out", str(place / "out.bundle"))) == 0
    assert capsys.readouterr().out == f"wrote {place / 'out.bundle'}: 2 entries\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quote"], "or give --provider"),
        (["collateral", "list"], "or give --dir DIR"),
        (["collateral", "fetch", "quote.bin"], "or give --out FILE, or --dir DIR"),
    ],
)
def test_without_settings_the_options_that_do_without_are_named(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(place.folder)
    assert main(["attest", *arguments, "--config", "none.toml"]) == 2
    assert capsys.readouterr().err.endswith(f"; {said}\n")


def test_a_line_that_does_not_verify_is_refused_and_the_others_are_kept(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (place / "collateral.json").read_bytes()
    signature = Collateral.from_json(good).tcb_info_signature.hex().encode()
    bad = good.replace(signature, b"00" * 64)
    bundle = place.write("a.bundle", bundle_of(good) + bundle_of(bad) + b"\x1b[2J\n")
    code, value = run_json(capsys, store(place, "import", bundle))
    assert (code, len(value["kept"])) == (1, 1)
    assert [(each["line"], each["error"]) for each in value["refused"]] == [
        (2, "tcb_info_signature"),
        (3, "collateral_bundle"),
    ]
    assert main(store(place, "import", bundle)) == 1
    said = capsys.readouterr().out
    assert "\nrefused  line 2: " in said
    assert "\x1b" not in said


def test_what_is_held_and_cannot_be_used_any_more_says_so(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = place.write("a.bundle", bundle_of((place / "collateral.json").read_bytes()))
    assert main(store(place, "import", bundle)) == 0
    capsys.readouterr()
    monkeypatch.setattr("time.time", lambda: float(NOW + 3651 * DAY_S))
    code, value = run_json(capsys, store(place, "list"))
    (held,) = value["collateral"]
    assert (code, held["fmspc"], held["fault"]) == (0, FMSPC, "collateral")
    assert held["error"].endswith("_expired")


def test_an_empty_store_is_listed_and_not_exported(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "store").mkdir()
    assert run_json(capsys, store(place, "list")) == (0, {"folder": str(place / "store"), "collateral": []})
    assert main(store(place, "list")) == 0
    assert capsys.readouterr().out == f"{place / 'store'}: no collateral is held\n"
    assert main(store(place, "export", "--out", str(place / "out.bundle"))) == 1
    assert "nothing is held that could be exported; fetch it first" in capsys.readouterr().err
    assert not (place / "out.bundle").exists()


def test_nothing_is_kept_in_a_folder_that_cannot_be_written(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.write("store", b"a file stands here")
    bundle = place.write("a.bundle", bundle_of((place / "collateral.json").read_bytes()))
    assert main(store(place, "import", bundle)) == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["import", "none", "--dir", "store"], 2, "none: cannot be read: No such file or directory"),
        (["import", "empty", "--dir", "store"], 1, "bundle: 0 entries, expected 1 to 64"),
        (["import", "quote.bin", "--dir", "store"], 1, "quote.bin: this looks like a quote, expected a bundle of coll"),
        (["import", "empty", "--update", "early", "--dir", "store"], 2, "--update: is for single collateral"),
        (["import", "-", "--root", "-", "--dir", "store"], 2, '"-" stands twice, and standard input can be read once'),
        (["list", "--config", "none.toml"], 2, "none.toml: missing"),
        (["list", "--dir", "store", "--root", "root.der"], 1, "{folder}/store: no such folder: nothing was fetched"),
        (["list", "--dir", "empty", "--root", "root.der"], 1, "{folder}/empty: cannot be read: Not a directory"),
        (["list", "--dir", "store", "--root", "quote.bin"], 2, "--root quote.bin: not a root certificate"),
        (["fetch", "none", "--out", "x"], 2, "none: cannot be read: No such file or directory"),
        (["fetch", "empty", "--out", "x"], 1, "quote: header: 48 bytes expected, 0 left; at fault: whoever made this"),
        (["fetch", "root.der", "--out", "x"], 1, "this looks like a certificate, expected a quote: quote: "),
        (["fetch", "quote.bin", "--out", "x"], 1, "chain: does not end in the pinned root"),
        (["fetch", "quote.bin", "--config", "none.toml"], 2, "none.toml: missing"),
    ],
)
def test_wrong_usage_and_bad_files_are_told_in_one_line(
    place: Place,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(place.folder)
    place.write("empty", b"")
    assert main(["attest", "collateral", *arguments]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"gpupool: {said.replace('{folder}', str(place.folder))}")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize("url", ["http://pccs.example:8081", "pccs.example", "https://"])
def test_a_service_is_asked_over_https_only(place: Place, capsys: pytest.CaptureFixture[str], url: str) -> None:
    arguments = ["attest", "collateral", "fetch", str(place / "quote.bin"), "--root", str(place / "root.der")]
    assert main([*arguments, "--url", url, "--out", str(place / "x")]) == 1
    assert "expected https://host" in capsys.readouterr().err
