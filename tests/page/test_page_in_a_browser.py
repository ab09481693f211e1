"""The status page in headless Chromium: its facts with and without script, alive, away, on a phone, for everybody.

`make page-test` installs what this needs. The agent behind the page is a listener that shows what a test tells it to;
`test_page_of_a_devnet` has a real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, browser, require_browser
from doctor_facts import NOW_S
from page_facts import broken, chain, diagnosis, gpus, neighbours, page_facts, source, status
from page_server import PageServer, page_server

from agent.page.facts import PageFacts

require_browser()
pytestmark = pytest.mark.slow

CHECKS = (Path(__file__).parent / "checks.js").read_text()
TAB = "\ue004"


def young() -> PageFacts:
    """An agent that has just started."""
    sections: dict[str, Any] = {"chain": None, "own": None, "entry": None, "claimable_nanoton": None}
    return page_facts(
        diagnosis=None,
        trouble="waiting for the chain",
        epochs=(),
        neighbours=neighbours(1, 0),
        status=status(**sections, close=None, reach=None, sources=[]),
    )


def large() -> PageFacts:
    """A pool of 10,000, and texts that do not end."""
    long = "x" * 400
    return page_facts(
        neighbours=neighbours(180, 9820),
        status=status(version=long, sources=[source(error=long, provenance=long, notes=[long])]),
        diagnosis=diagnosis(verdict=f"you earn: {long}"),
    )


def between() -> PageFacts:
    """No epoch closes: that of most of the time."""
    return page_facts(status=status(close=None))


STATES = {"healthy": page_facts, "broken": broken, "young": young, "large": large, "between": between}


@pytest.fixture(scope="module")
def one_window() -> Iterator[Browser]:
    with browser() as window:
        yield window


@pytest.fixture
def window(one_window: Browser) -> Iterator[Browser]:
    """The page is left at the end: it would go on asking a listener that is gone, and say so to the next test."""
    yield one_window
    one_window.open("about:blank")
    one_window.complaints()


@pytest.fixture
def server() -> Iterator[PageServer]:
    with page_server(page_facts()) as server:
        yield server


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_everybody_can_read_it(window: Browser, server: PageServer, state: str, is_dark: bool) -> None:
    server.facts = STATES[state]()
    window.open(server.url, is_dark=is_dark)
    for width in (1280, 900, 600, 360, 320):
        window.size(width, is_dark=is_dark)
        for details in window.driver.find_elements("css selector", "details:not([open]) > summary"):
            details.click()
        assert window.ask(CHECKS) == []
    assert window.complaints() == []


@pytest.mark.parametrize("state", ["healthy", "large"])
def test_a_short_value_stays_in_one_line(window: Browser, server: PageServer, state: str) -> None:
    server.facts = STATES[state]()
    window.open(server.url)
    lines = (
        "const range = document.createRange();"
        "return [...document.querySelectorAll(arguments[0])]"
        ".map(e => (range.selectNodeContents(e), range.getClientRects().length))"
    )
    for width in (1280, 1000, 900, 600, 320):
        window.size(width)
        assert window.ask(lines, "#peers > .facts dd") == [1, 1, 1], width
    window.size(1280)
    assert window.ask(lines, "#peers > .facts dt") == [1, 1, 1], "nor is its name broken where there is room"


def test_the_bar_follows_the_epoch(window: Browser, server: PageServer) -> None:
    server.facts = page_facts(status=status(close=None))
    window.open(server.url)
    assert "75 % of its time is over" in window.text("#close")
    width = "return document.querySelector('#close .fill').getAttribute('width')"
    assert window.ask(width) == "75.00"
    server.facts = page_facts(status=status(close=None, chain=chain(epoch_end_s=NOW_S + 60_000)))
    window.until(lambda: window.ask(width) == "50.00")
    server.facts = page_facts()
    window.until(lambda: window.ask("return document.querySelector('#close .mark') !== null"))
    assert window.ask("return document.querySelector('#close .bar > title').textContent").startswith("4 of 7 attested")
    server.facts = page_facts(status=status(close=None))
    window.until(lambda: window.ask("return document.querySelector('#close .mark') === null"))
    assert window.ask(CHECKS) == []
    assert window.complaints() == []


def test_the_colours_follow_the_scheme(window: Browser, server: PageServer) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    window.open(server.url)
    light = window.ask(background)
    window.size(1280, is_dark=True)
    assert window.ask(background) != light


def test_the_facts_are_there_without_a_script(server: PageServer) -> None:
    server.facts = broken()
    with browser(has_scripts=False) as window:
        window.open(server.url)
        text = window.text()
        assert "You do not earn" in text
        assert "start the engine, or correct engine.url" in text.lower()
        assert "18.402 TON" in text
        assert "Operators connected\n5 of 6" in text
        assert window.driver.find_elements("css selector", "meta[http-equiv=refresh]")
        assert window.complaints() == []


def test_it_stays_up_to_date_and_leaves_the_reader_alone(window: Browser, server: PageServer) -> None:
    window.open(server.url, width=360)
    window.driver.find_element("css selector", "#gauges-nvml > summary").click()
    window.driver.find_element("css selector", "#peers-table > summary").click()
    window.ask("document.querySelector('#peers-table > summary').focus({preventScroll: true})")
    window.ask("document.querySelector('#epochs .scroller').scrollLeft = 50")
    window.ask("window.kept = document.querySelector('#epochs tbody tr')")
    server.facts = replace(
        broken(), status=status(claimable_nanoton=21_000_000_000, sources=[source(), gpus(1), source(instance=1)])
    )
    window.until(lambda: "You do not earn" in window.text("h1"))
    assert "21.000 TON" in window.text("#earnings")
    assert "engine-1" in window.text("#sources")
    assert window.driver.title.startswith("You do not earn")
    assert window.ask("return document.querySelector('#gauges-nvml').open"), "what was unfolded stays so"
    assert not window.ask("return document.querySelector('#peers-table').open"), "and what was folded"
    assert window.ask("return document.activeElement === document.querySelector('#peers-table > summary')")
    assert window.ask("return document.querySelector('#epochs .scroller').scrollLeft") == 50
    assert window.ask("return window.kept.isConnected"), "what did not change was not drawn anew"
    assert window.complaints() == []


def test_an_agent_that_stops_answering_is_said_to_and_its_facts_stay(window: Browser, server: PageServer) -> None:
    server.facts = page_facts(config=Path("/etc/gpupool/two/agent.toml"))
    window.open(server.url)
    before = window.ask("return getComputedStyle(document.querySelector('.big')).color")
    server.stop()
    window.until(lambda: window.ask("return !document.getElementById('away').hidden"))
    assert "The agent stopped answering at" in window.text("[role=status]")
    assert "Is it running? systemctl status gpupool-agent@two" in window.text("[role=status]")
    assert "18.402 TON" in window.text("#earnings"), "facts are greyed, not wiped"
    assert window.ask("return getComputedStyle(document.querySelector('.big')).color") != before
    assert window.driver.title.startswith("No answer – You earn")
    window.until(lambda: "no answer for" in window.text("#pulse"))
    assert [each for each in window.ask(CHECKS) if not each.startswith("only")] == []
    window.size(1280, is_dark=True)
    assert [each for each in window.ask(CHECKS) if not each.startswith("only")] == []
    server.start()
    window.until(lambda: window.ask("return document.getElementById('away').hidden"))
    assert window.driver.title.startswith("You earn")
    assert "as of" in window.text("#pulse")
    window.complaints()  # that nobody answered is in the console


def test_nothing_is_asked_while_nobody_looks(window: Browser, server: PageServer) -> None:
    window.open(server.url)
    turn = (
        "const [is] = arguments;"
        "Object.defineProperty(document, 'hidden', {get: () => is, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    window.ask(turn, True)
    assert window.text("#pulse") == "paused"
    asked = server.asked
    server.facts = broken()
    window.ask(turn, False)
    window.until(lambda: "You do not earn" in window.text("h1"))
    assert server.asked == asked + 1, "it asks at once when somebody looks again, and did not before"


def test_another_version_of_the_agent_brings_its_own_page(window: Browser, server: PageServer) -> None:
    window.open(server.url)
    window.ask("window.isOld = true")
    server.facts = page_facts(status=status(version="2.0"))
    window.until(lambda: "2.0" in window.text("header"))
    assert window.ask("return window.isOld === undefined")


def test_the_keyboard_reaches_everything_in_order(window: Browser, server: PageServer) -> None:
    window.open(server.url)
    wanted = window.ask(
        "return [...document.querySelectorAll('a, summary, [tabindex=\"0\"]')]"
        ".filter(e => e.checkVisibility()).map(e => e.textContent.slice(0, 40))"
    )
    reached = []
    for _ in wanted:
        window.press(TAB)
        reached.append(window.ask("return document.activeElement.textContent.slice(0, 40)"))
        outline = window.ask("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", reached[-1]
    assert reached == wanted
    assert wanted[0] == "To the facts"
    window.open(server.url)
    window.press(TAB)
    assert window.ask("return document.activeElement.getBoundingClientRect().left") >= 0, "the skip link shows itself"
    window.press("\ue007")
    assert window.ask("return document.activeElement.id") == "main"


def test_the_browser_runs_nothing_that_is_not_a_file_of_the_listener(window: Browser, server: PageServer) -> None:
    server.facts = page_facts(
        trouble='<img src=x onerror="window.ran = 1"><script>window.ran = 1</script>',
        diagnosis=diagnosis(earns=False, verdict="you do not earn: <svg onload=window.ran=1>"),
    )
    window.open(server.url)
    assert "<svg onload=window.ran=1>" in window.text()
    assert window.complaints() == []
    window.ask(
        "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.head.append(s);"
        "const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'; document.body.append(i);"
        "document.body.setAttribute('style', 'color: red')"
    )
    complaints = window.until(lambda: [each for each in window.complaints() if "Content Security Policy" in each])
    assert complaints
    assert window.ask("return window.ran") is None


@pytest.mark.parametrize("state", ["healthy", "broken", "between"])
def test_pictures_for_whoever_looks(window: Browser, server: PageServer, state: str, tmp_path: Path) -> None:
    """They are left in pytest's folder: look at them after a change of the design."""
    server.facts = STATES[state]()
    for width in (1280, 360, 320):
        for is_dark in (False, True):
            window.open(server.url, width=width, is_dark=is_dark)
            path = tmp_path / f"{state}-{width}-{'dark' if is_dark else 'light'}.png"
            window.picture(path)
            assert path.read_bytes().startswith(b"\x89PNG")
