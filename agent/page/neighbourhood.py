"""The map of who hears whom: nodes on a circle, lines between them, and the same as a table. Pure.

What operators say of one another is from their observations (`agent.page.hearing`): signed, and maybe lies.

1. A line is whole if each of the two that observed heard the other, and broken if one of them did not. Who is no
   operator does not observe: a line to it needs the operator's word alone.
2. This node's connections of now are drawn besides.
3. No meaning is in a colour alone: lines differ in form, nodes in form and in the table.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element

import msgspec

from agent import status_parts as parts
from agent.page.facts import Neighbours, PageFacts, Peer
from agent.page.html import Child, facts, hint, short, span, table, tag
from agent.page.panels import counted, panel
from agent.texts import legible

PEERS_SHOWN = 36
LABELLED_MAX = 16
"""More are drawn without names, and their table is folded."""
NOT_DIALLED_SHOWN = 8
_SIZE, _RADIUS = 360, 122
"""Of the drawing and of the circle in it, in its own units."""


def neighbourhood_panel(page: PageFacts) -> Element:
    """Who is connected, the map, and the table."""
    around, told = page.neighbours, msgspec.convert(page.status, parts.ReachPart)
    reach = told["reach"]
    is_short = reach is not None and 3 * reach["weight"] <= 2 * reach["total_weight"]
    return panel(
        "peers",
        "Who hears whom",
        facts(
            ("Operators connected", f"{around.operators_connected:,} of {around.operators:,}"),
            ("Others connected", f"{around.participants_connected:,} of {around.participants:,}")
            if around.participants
            else None,
            None if reach is None else ("Weight in reach", f"{reach['weight']:,} of {reach['total_weight']:,}"),
        ),
        hint(
            f"{counted(around.operators_unusable, 'connected operator')} not in reach: of a version that is not known "
            "yet, or none to work with."
        )
        if around.operators_unusable
        else None,
        hint("Not more than two thirds of the operators' weight: as seen from here no epoch can settle.", "problem")
        if is_short
        else None,
        [hint(legible(each), "warning") for each in list(told["not_dialled"].values())[:NOT_DIALLED_SHOWN]],
        _figure(around) if len(around.peers) > 1 else tag("p", "No other node is known yet.", class_="quiet"),
    )


def _figure(around: Neighbours) -> Element:
    hidden = around.operators + around.participants + 1 - len(around.peers)
    source = (
        "Who heard whom is known once an epoch closes while this agent runs."
        if around.epoch is None
        else f"Lines: who heard whom in epoch {around.epoch}, as the operators observed it."
    )
    more = f" {hidden:,} more nodes are not shown." if hidden > 0 else ""
    words = (("link", "connected with this node now"), ("heard", "heard each other"), ("partly", "one did not"))
    legend = tag("ul", (tag("li", _sample(class_), text) for class_, text in words), class_="legend")
    is_open = "" if len(around.peers) <= LABELLED_MAX else None
    return tag(
        "div",
        tag("figure", _drawing(around), tag("figcaption", source + more, legend)),
        tag("details", tag("summary", "The same as a table"), _table(around), id="peers-table", open=is_open),
        class_="map",
    )


def _sample(class_: str) -> Element:
    return tag("svg", tag("path", d="M0 5H28", class_=class_), viewBox="0 0 28 10", class_="sample", aria_hidden="true")


def _drawing(around: Neighbours) -> Element:
    places = dict(zip((peer.node_key for peer in around.peers), _circle(len(around.peers)), strict=True))
    heard, partly = _lines(around)
    own, *others = (peer.node_key for peer in around.peers)
    connected = {peer.node_key for peer in around.peers if peer.connected}
    links = [(own, other) for other in others if other in connected]
    has_labels = len(around.peers) <= LABELLED_MAX
    return tag(
        "svg",
        tag("title", f"Map of {len(around.peers)} nodes; the table below says the same"),
        tag("path", d=_path(heard, places), class_="heard"),
        tag("path", d=_path(partly, places), class_="partly"),
        tag("path", d=_path(links, places), class_="link"),
        [_node(peer, *places[peer.node_key], is_own=peer is around.peers[0]) for peer in around.peers],
        [_label(peer, *places[peer.node_key], is_own=peer is around.peers[0]) for peer in around.peers if has_labels],
        viewBox=f"0 0 {_SIZE} {_SIZE}",
        class_="circle" if has_labels else "circle many",
        role="img",
    )


Point = tuple[float, float]


def _circle(number: int) -> list[Point]:
    """Places on the circle, this node's at the top, the others clockwise."""
    turns = (2 * math.pi * i / number for i in range(number))
    return [(_SIZE / 2 + _RADIUS * math.sin(turn), _SIZE / 2 - _RADIUS * math.cos(turn)) for turn in turns]


def _path(lines: Iterable[tuple[str, str]], places: dict[str, Point]) -> str:
    ends = ((*places[a], *places[b]) for a, b in lines)
    return "".join(f"M{x:.0f} {y:.0f}L{u:.0f} {v:.0f}" for x, y, u, v in ends) or "M0 0"


def _lines(around: Neighbours) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The pairs of which each heard the other, as far as they observed, and those of which one did not (rule 1)."""
    heard, partly = [], []
    for a, b in itertools.combinations((peer.node_key for peer in around.peers), 2):
        said = [
            around.heard_s[one][other] > 0 for one, other in ((a, b), (b, a)) if other in around.heard_s.get(one, {})
        ]
        if said and all(said):
            heard.append((a, b))
        elif any(said):
            partly.append((a, b))
    return heard, partly


def _node(peer: Peer, x: float, y: float, *, is_own: bool) -> Element:
    """An operator is a circle, another node a square; one that is away is hollow; this node has a ring."""
    state = "own" if is_own else "on" if peer.connected else "off"
    title = tag("title", f"{peer.node_key[:16]}, {_role(peer)}, {_connection(peer)}")
    if peer.is_operator:
        shape = tag("circle", cx=f"{x:.0f}", cy=f"{y:.0f}", r=6, class_=f"node {state}")
    else:
        shape = tag("rect", x=f"{x - 5:.0f}", y=f"{y - 5:.0f}", width=10, height=10, class_=f"node {state}")
    ring = tag("circle", cx=f"{x:.0f}", cy=f"{y:.0f}", r=11, class_="ring") if is_own else None
    return tag("g", title, ring, shape)


def _label(peer: Peer, x: float, y: float, *, is_own: bool) -> Element:
    away = 20 if is_own else 14
    u, v = (x - _SIZE / 2) / _RADIUS, (y - _SIZE / 2) / _RADIUS
    anchor = "middle" if abs(u) < 0.3 else "start" if u > 0 else "end"
    text = "this node" if is_own else peer.node_key[:6]
    return tag("text", text, x=f"{x + away * u:.0f}", y=f"{y + away * v + 4:.0f}", text_anchor=anchor)


def _table(around: Neighbours) -> Element:
    keys = [peer.node_key for peer in around.peers]
    rows = [_row(peer, keys, around) for peer in around.peers]
    return table("Who hears whom", ("Node", "Role", "Connection now", "Hears", "Heard by"), rows)


def _row(peer: Peer, keys: Sequence[str], around: Neighbours) -> tuple[Child, ...]:
    heard = around.heard_s.get(peer.node_key)
    by = [read[peer.node_key] > 0 for key, read in around.heard_s.items() if key in keys and peer.node_key in read]
    return (
        [short(peer.node_key), " (this node)"] if peer.connected is None else short(peer.node_key),
        _role(peer),
        _connection(peer),
        "–" if heard is None else f"{sum(value > 0 for value in heard.values())} of {len(heard)}",
        f"{sum(by)} of {len(by)}" if by else "–",
    )


def _role(peer: Peer) -> str:
    return "operator" if peer.is_operator else "participant"


def _connection(peer: Peer) -> str:
    if peer.connected is None:
        return "this node"
    if not peer.connected:
        return "away" if peer.heard_ago_s is None else f"away, heard {span(peer.heard_ago_s)} ago"
    return "connected" if peer.rtt_ms is None else f"connected, {peer.rtt_ms:.0f} ms"
