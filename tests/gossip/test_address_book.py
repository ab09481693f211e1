"""The address book: the newest record of who is registered, and nothing that a peer can make it grow by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import POOL, START_S, key

from contracts.signing import SigningKey
from gossip import codec, sync
from gossip.address_book import FUTURE_S, REPLACED_AFTER_S, AddressBook
from gossip.addresses import ADDRESS_BYTES_MAX, make_address_record
from gossip.errors import InvalidMessageError
from gossip.sync import ADDRESS_RANGES, AddressesRequest, parse_page

NOW_S = START_S + 10_000
REGISTERED = frozenset(key(i).public for i in range(40))
NOTHING = bytes(ADDRESS_RANGES * sync.RANGE_DIGEST_BYTES)


def wire_of(i: int, issued_s: int = START_S, port: int = 4001, by: SigningKey | None = None) -> bytes:
    return make_address_record(by or key(i), POOL, issued_s=issued_s, addresses=[f"/ip4/203.0.113.7/tcp/{port}"])


def take(book: AddressBook, wire: bytes, now_s: int = NOW_S) -> bool:
    return book.take(wire, registered=REGISTERED, now_s=now_s)


def test_the_newest_record_counts() -> None:
    book = AddressBook(POOL)
    assert take(book, wire_of(0, 100, 1))
    assert take(book, wire_of(0, 200, 2))
    assert not take(book, wire_of(0, 200, 3), NOW_S + 1000)
    assert not take(book, wire_of(0, 150, 4), NOW_S + 1000)
    assert book.addresses(key(0).public) == ("/ip4/203.0.113.7/tcp/2",)
    assert book.addresses(key(1).public) == ()
    assert book.revision == 2


@given(st.permutations(range(5)))
def test_the_order_in_which_records_come_does_not_matter(order: list[int]) -> None:
    book = AddressBook(POOL)
    for turn, i in enumerate(order):
        take(book, wire_of(0, START_S + i, i + 1), NOW_S + turn * REPLACED_AFTER_S)
    assert book.addresses(key(0).public) == ("/ip4/203.0.113.7/tcp/5",)


def test_an_old_record_does_not_expire_by_itself() -> None:
    book = AddressBook(POOL)
    take(book, wire_of(0, 100), NOW_S + 10**8)
    assert book.addresses(key(0).public) != ()


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"garbage", "encoding"),
        (wire_of(99), "not in the registry"),
        (wire_of(0, NOW_S + FUTURE_S + 1), "in the future"),
        (codec.encode((codec.open_envelope(wire_of(0), bytes_max=ADDRESS_BYTES_MAX)[0], bytes(64))), "signature"),
    ],
)
def test_what_is_wrong_is_refused(wire: bytes, reason: str) -> None:
    book = AddressBook(POOL)
    with pytest.raises(InvalidMessageError, match=reason):
        take(book, wire)
    assert book.wires() == ()


def test_a_forged_newer_record_does_not_replace_a_true_one() -> None:
    book = AddressBook(POOL)
    take(book, wire_of(0, 100, 1))
    signed, _ = codec.open_envelope(wire_of(0, 200, 2), bytes_max=ADDRESS_BYTES_MAX)
    with pytest.raises(InvalidMessageError, match="signature"):
        take(book, codec.seal(signed, key(1)))
    assert book.addresses(key(0).public) == ("/ip4/203.0.113.7/tcp/1",)


def test_who_reissues_all_the_time_changes_something_once_a_minute() -> None:
    book = AddressBook(POOL)
    for second in range(600):
        take(book, wire_of(0, START_S + second, 1 + second), NOW_S + second)
    assert book.revision <= 2 + 600 // REPLACED_AFTER_S
    assert len(book.wires()) == 1


def test_a_clock_that_steps_back_does_not_lock_a_key_out() -> None:
    book = AddressBook(POOL)
    for i in (1, 2):
        take(book, wire_of(0, START_S + i, i), NOW_S)
    assert take(book, wire_of(0, START_S + 3, 3), NOW_S - 5000)


def test_who_is_not_registered_any_more_is_let_go_of() -> None:
    book = AddressBook(POOL)
    for i in range(3):
        take(book, wire_of(i))
    before = book.digests()
    book.keep_only({key(1).public})
    assert book.wires() == (wire_of(1),)
    assert book.digests() != before


# What peers tell one another.


def exchange(asker: AddressBook, told: AddressBook) -> int:
    """Ask until nothing is left; returns how many pages it took."""
    first = pages = 0
    while first < ADDRESS_RANGES:
        request = AddressesRequest(first=first, digests=asker.digests(), own=None)
        assert sync.parse_request(sync.encode_request(request)) == request
        page = parse_page(sync.encode_page(told.page(first, request.digests)), request)
        for wire in page.wires:
            take(asker, wire)
        first, pages = page.next, pages + 1
    return pages


@given(st.sets(st.integers(0, 39)), st.sets(st.integers(0, 39)), st.sets(st.integers(0, 39)))
def test_after_an_exchange_the_asker_knows_the_newest_of_both(
    mine: set[int], theirs: set[int], newer: set[int]
) -> None:
    a, b = AddressBook(POOL), AddressBook(POOL)
    for i in mine:
        take(a, wire_of(i, 100))
    for i in theirs:
        take(b, wire_of(i, 200 if i in newer else 100, 2 if i in newer else 4001))
    exchange(a, b)
    for i in mine | theirs:
        port = 2 if i in newer & theirs else 4001
        assert a.addresses(key(i).public) == (f"/ip4/203.0.113.7/tcp/{port}",)


def test_peers_that_agree_send_nothing() -> None:
    a, b = AddressBook(POOL), AddressBook(POOL)
    for i in range(40):
        take(a, wire_of(i))
        take(b, wire_of(39 - i))
    assert a.digests() == b.digests()
    assert b.page(0, a.digests()).wires == ()
    take(b, wire_of(7, START_S + 1, 7))
    assert wire_of(7, START_S + 1, 7) in b.page(0, a.digests()).wires
    assert len(b.page(0, a.digests()).wires) < 5


def test_a_large_book_goes_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossip.address_book.PAGE_BYTES_MAX", 2_000)
    a, b = AddressBook(POOL), AddressBook(POOL)
    for i in range(40):
        take(b, wire_of(i))
    assert len(b.page(0, NOTHING).wires) < 12
    assert exchange(a, b) > 3
    assert a.wires() == b.wires()


def test_a_range_larger_than_a_page_is_cut_short_and_does_not_stop_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossip.address_book.PAGE_BYTES_MAX", 500)
    book = AddressBook(POOL)
    for i in range(40):
        take(book, wire_of(i))
    first, ranges = 0, []
    while first < ADDRESS_RANGES:
        page = book.page(first, NOTHING)
        assert sum(map(len, page.wires)) <= 500
        ranges.append(page)
        first = page.next
    assert len(ranges) <= ADDRESS_RANGES
