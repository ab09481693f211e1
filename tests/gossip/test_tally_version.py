"""The tally's version stands for what it computes: a fixed pool settles as it did when the version was given."""

from __future__ import annotations

from epochs import Epochs

from gossip.hello import TALLIES
from gossip.tally import TALLY_VERSION

ROOTS = {
    1: (
        "0fb43f2a872fc3f8f00848490acbe444d7d42a97a95b6aba34a3b5c9d5b84a46",
        "9df176b5d020f5c9a3b182bb618fe415abdf271e4623217df931d91af52d5841",
    ),
}
"""By version: the roots of totals of two epochs. A change of these numbers is a new version, and a new line here."""


def roots() -> tuple[str, ...]:
    """Of a pool of four that work and are witnessed unlike each other; one of them without proof."""
    pool, found = Epochs(4), []
    for epoch in range(2):
        for i, author in enumerate(pool.authors):
            if i != 3:
                author.prove()
            for _ in range(i + 2):
                author.work(tokens=1000 * (i + 1) + epoch)
        found.append(pool.settle(witnessed_s=[1000, 35, 20, 1000]).payload.totals_root.hex())
    return tuple(found)


def test_this_version_computes_what_it_stands_for() -> None:
    assert roots() == ROOTS[TALLY_VERSION], "another settlement is another tally: raise TALLY_VERSION"


def test_the_hello_tells_it() -> None:
    assert TALLIES == (TALLY_VERSION,)
