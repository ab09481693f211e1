"""The rows of `tests.gossip.tools.transport_rows` about streams that stay open."""

from __future__ import annotations

from tests.gossip.tools.row import Row

CONNECTIONS = "gossip/libp2p_patches/connections.py"
PUBSUB = "gossip/libp2p_patches/pubsub.py"

STREAM_ROWS = (
    Row(
        "a request cancelled while it opens its stream: open at both ends for good; after 64 the peer is an attacker",
        "opening is not cancelled half-way",
        CONNECTIONS,
        "test_streams_end.py::test_a_request_cancelled_at_any_step_leaves_no_stream",
        "with trio.CancelScope(shield=True):  # as `open_stream`",
        "if True:",
    ),
    Row(
        "a stream that is reset with unread bytes stays for 90 s",
        "it ends with its reset",
        CONNECTIONS,
        "test_streams_end.py::test_a_request_cancelled_at_any_step_leaves_no_stream",
        "self.conn.stream_buffers.pop(self.stream_id, None)",
        "pass",
    ),
    Row(
        "a peer that answers and never ends its side: a stream of 4.6 KB for each request",
        "after an answer the stream is reset",
        "gossip/transport/exchange.py",
        "test_streams_end.py::test_an_answer_without_an_end_is_not_waited_for_and_holds_nothing",
        "            response = await _read_frame(stream, response_bytes_max)\n",
        "            response = await _read_frame(stream, response_bytes_max)\n            stream = None\n",
    ),
    Row(
        "a gossip stream that its peer ended stays half open",
        "its other half is ended too",
        PUBSUB,
        "test_streams_end.py::test_a_gossip_stream_that_its_peer_ends_is_ended_here",
        "await reset_quietly(stream)  # its other end is done with it, and so are we",
        "pass",
    ),
    Row(
        "a peer that takes no gossip: a further stream every 5 s, and none is closed",
        "the lost one is reset first",
        PUBSUB,
        "test_streams_end.py::test_a_gossip_stream_that_takes_no_bytes_is_ended_before_the_next_one",
        "            await reset_quietly(stream)\n\n    async def write_msg",
        "            pass\n\n    async def write_msg",
    ),
    Row(
        "a lost gossip stream leaves two tasks for as long as its peer stays; after 490 the peer is deaf",
        "the tasks of gossip are nobody's children",
        PUBSUB,
        "test_streams_end.py::test_gossip_streams_that_are_lost_leave_no_tasks",
        "self.manager._find_parent_task = _no_parent",
        "pass",
    ),
    Row(
        "a stranger that resets each gossip stream is offered 20 a second",
        "one a second, of the roster one in 0.1 s",
        PUBSUB,
        "test_streams_end.py::test_a_stranger_that_lets_each_gossip_stream_go_is_offered_few",
        "await trio.sleep(REATTACH_S if in_roster else REATTACH_TO_STRANGER_S)",
        "pass",
    ),
)
