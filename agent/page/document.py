"""The page as a whole. Pure: facts in, HTML out.

1. What stands on the page is there without its script, and then reloads itself; the script only brings it up to date.
2. Nothing is loaded from anywhere else, and nothing stands inline: style, script and icon are files of this listener
   with contents that never change while it runs. `CONTENT_SECURITY_POLICY` holds the browser to it.
3. The order is that in which an owner wants to know: do I earn, what, by which proof, with which machines.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from agent.invoking import unit_of
from agent.page.closing import close_panel
from agent.page.facts import PageFacts
from agent.page.html import Child, document, tag
from agent.page.measured import sources_panel
from agent.page.neighbourhood import neighbourhood_panel
from agent.page.panels import earnings_panel, epochs_panel, evidence_panel, pool_panel
from agent.page.verdict import verdict_of, verdict_section
from agent.texts import legible

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
RELOAD_S = 30


def page(facts: PageFacts) -> str:
    """The HTML of the page."""
    said, name = verdict_of(facts), str(facts.status["node_key"])[:8]
    version = legible(str(facts.status["version"]))
    return document(
        tag(
            "html",
            _head(f"{said.headline} – {name} – gpupool"),
            tag(
                "body",
                tag("a", "To the facts", href="#main", class_="skip"),
                _header(name, version, facts),
                tag("main", verdict_section(facts), _panels(facts), id="main", tabindex=-1),
                _footer(),
            ),
            lang="en",
            data_version=version,
            data_unit=unit_of(facts.config.absolute()),
        )
    )


def _head(title: str) -> Element:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="/page.svg", type="image/svg+xml"),
        tag("link", rel="stylesheet", href="/page.css"),
        tag("script", "", src="/page.js", defer=""),
        tag("noscript", _meta_refresh()),
    )


def _meta_refresh() -> Element:
    element = tag("meta", content=str(RELOAD_S))
    element.set("http-equiv", "refresh")
    return element


def _header(name: str, version: str, facts: PageFacts) -> Element:
    return tag(
        "header",
        tag("p", tag("b", "gpupool"), f" {version}"),
        tag("p", "node ", tag("code", name, title=str(facts.status["node_key"]))),
        tag("p", _reading(facts.now_s), id="pulse"),
    )


def _reading(now_s: int) -> Child:
    minute, second = divmod(now_s % 86_400, 60)
    return f"as of {minute // 60:02}:{minute % 60:02}:{second:02} UTC"


def _panels(facts: PageFacts) -> Element:
    return tag(
        "div",
        earnings_panel(facts),
        evidence_panel(facts),
        close_panel(facts),
        sources_panel(facts),
        neighbourhood_panel(facts),
        pool_panel(facts),
        epochs_panel(facts),
        class_="panels",
    )


def _footer() -> Element:
    links = (("Metrics", "/metrics"), ("Status as JSON", "/-/status"), ("Ready?", "/-/ready"))
    return tag(
        "footer",
        tag("nav", (tag("a", text, href=path) for text, path in links), aria_label="What else this agent tells"),
        tag("p", "This page changes nothing. What does is in ", tag("code", "gpupool --help"), "."),
    )
