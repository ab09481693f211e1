"""A text that is not the TOML that was expected: what is said names key and line, and what was perhaps meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from agent_on_disk import KEY_BASE64

from agent.config import parse_config
from agent.errors import ConfigError

TEXT = f"""data_dir = "data"
[pool]
network = -217
address = "0:abababababababababababababababababababababababababababababababab"
policy_file = "policy.toml"
[engine]
url = "http://127.0.0.1:8000/metrics"
[attestation]
provider = "configfs"
[meter]  # how
window_s = 60
[[chain.liteservers]]
host = "127.0.0.1"
port = 4924
public_key = "{KEY_BASE64}"
[[chain.liteservers]]
host = "127.0.0.1"
port = 4925
public_key = "{KEY_BASE64}"
"""


def test_the_text_is_a_config() -> None:
    assert parse_config(TEXT, Path("agent.toml")).meter.window_s == 60


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("window_s = ", "window_seconds = ", "meter.window_seconds: unknown key; did you mean window_s? (line 11)"),
        (
            "window_s = 60",
            "w = 60",
            "meter.w: unknown key; known here are sample_interval_s, window_s, disagreement_max or samples_kept_days "
            "(line 11)",
        ),
        ("[meter]", "[metre]", "metre: unknown key; did you mean meter? (line 10)"),
        (
            '"configfs"',
            '"tdx"',
            'attestation.provider: expected "cocoon", "configfs" or "software", not \'tdx\' (line 9)',
        ),
        (
            'url = "http',
            'url = 1 # "http',
            "engine.url: expected text in quotes or a list, not a whole number (line 7)",
        ),
        ("port = 4925", "", "chain.liteservers[1].port: missing (line 16)"),
        ("port = 4925", "port = 4.5", "chain.liteservers[1].port: expected a whole number, not a fraction (line 18)"),
        ("[meter]  # how\nwindow_s = 60", 'meter.window_s = "60"', "attestation.meter: unknown key; "),
        ('data_dir = "data"', "", "data_dir: missing"),
        ("window_s = 60", "window_s 60", "not TOML: expected '=' after a key in a key/value pair (at line 11, column "),
        ("window_s = 60", "window_s = 6\nwindow_s = 7", "not TOML: a key or table stands twice: "),
        ("window_s = 60", "window_s = " + "[" * 10_000, "not TOML: nested too deeply"),
        ("window_s = 60", "window_s = 60\n" + "x" * 100_000 + " = 1", ": unknown key; known here are "),
    ],
)
def test_what_is_wrong_is_said_with_key_and_line(old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError) as caught:
        parse_config(TEXT.replace(old, new, 1), Path("agent.toml"))
    assert str(caught.value).startswith("agent.toml: ")
    assert said in str(caught.value)
