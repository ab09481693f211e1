"""What libp2p does by default and what is done about it: for each row, the fix, and the test that fails without it.

`tests.gossip.tools.take_out` takes each fix out and sees the test fail; the table of docs/transport.md is written
from these rows.
"""

from __future__ import annotations

from pathlib import Path

from tests.gossip.tools.row import Row
from tests.gossip.tools.stream_rows import STREAM_ROWS

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "transport.md"


STACK = "gossip/transport/stack.py"
CONNECTIONS = "gossip/libp2p_patches/connections.py"
PUBSUB = "gossip/libp2p_patches/pubsub.py"
ROUTER = "gossip/libp2p_patches/router.py"
RPC = "gossip/libp2p_patches/rpc.py"
PLAINTEXT = '__import__("libp2p.security.insecure.transport", fromlist=["x"]).InsecureTransport(key_pair)'

ROWS = (
    Row(
        "security noise, tls, secio, **plaintext**: a peer id without proof",
        "Noise only",
        STACK,
        "test_libp2p_patches.py::test_nothing_but_noise_is_negotiated",
        "TransportUpgrader({TProtocol(NOISE_ID): noise}, {})",
        f'TransportUpgrader({{TProtocol(NOISE_ID): noise, TProtocol("/plaintext/2.0.0"): {PLAINTEXT}}}, {{}})',
    ),
    Row(
        "heartbeat of 120 s: the mesh forms in minutes",
        "1 s, window 6, history 12",
        STACK,
        "test_libp2p_patches_gossip.py::test_a_heartbeat_soon_fills_a_mesh_that_lost_a_peer",
        "heartbeat_interval=1,",
        "heartbeat_interval=120,",
    ),
    Row(
        "10 messages a second per *forwarder*: 22 of 100 arrive",
        "off; `gossip.admission` limits origins",
        STACK,
        "test_libp2p_patches_gossip.py::test_nobody_limits_the_messages_of_others",
        "spam_protection_enabled=False",
        "spam_protection_enabled=True",
    ),
    Row(
        "seqno counts from `int(time())`: silence after a burst and a quick restart",
        "from `time_ns()`",
        PUBSUB,
        "test_libp2p_patches.py::test_message_ids_are_not_repeated_after_a_quick_restart",
        "self.counter = time.time_ns()",
        "self.counter = int(time.time())",
    ),
    Row(
        "GossipSub 1.2 (IDONTWANT with signed records): median 26 ms becomes 2.1 s",
        "1.1 and nothing newer is spoken",
        STACK,
        "test_libp2p_patches_gossip.py::test_gossipsub_1_1_is_spoken_and_nothing_newer",
        "protocols=[PROTOCOL_ID_V11],",
        'protocols=["/meshsub/1.2.0", PROTOCOL_ID_V11],',
    ),
    Row(
        "queues of 32, silent drop: 16 of a burst of 500 arrive",
        "queues of 256 ...",
        "gossip/libp2p_patches/__init__.py",
        "test_libp2p_patches_gossip.py::test_a_burst_waits_and_is_not_lost",
        "OUTBOUND_RPCS_MAX = 256",
        "OUTBOUND_RPCS_MAX = 32",
    ),
    Row(
        "the same",
        "... and publishing is paced",
        "gossip/transport/__init__.py",
        "test_libp2p_patches_gossip.py::test_publishing_is_paced",
        "while not self._pace.take(trio.current_time()):",
        "while False:",
    ),
    Row(
        "50 bytes of garbage on the gossip stream: **the process dies**",
        "a guard around every stream handler; DecodeError ends the stream",
        CONNECTIONS,
        "test_libp2p_patches.py::test_garbage_on_the_gossip_stream_ends_nothing_but_the_stream",
        "        except Exception as error:  # noqa: BLE001 see above",
        "        except ZeroDivisionError as error:",
    ),
    Row(
        "a message with a hashed id and a junk key: **the process dies**",
        "only ids that contain their Ed25519 key",
        "gossip/libp2p_patches/identity.py",
        "test_libp2p_patches.py::test_other_peer_ids_are_refused",
        "if len(peer_id_bytes) != 38 or not peer_id_bytes.startswith(_ED25519_ID_PREFIX):",
        "if False:",
    ),
    Row(
        "a raising stream handler ends every stream of that peer, or the process",
        "the same guard",
        CONNECTIONS,
        "test_libp2p_patches.py::test_a_raising_stream_handler_ends_its_own_stream",
        "        except Exception as error:  # noqa: BLE001 see above",
        "        except ZeroDivisionError as error:",
    ),
    Row(
        "a slow asynchronous validator: delivered twice",
        "a synchronous check; seen before it is delivered",
        PUBSUB,
        "test_libp2p_patches.py::test_a_message_is_delivered_once_however_often_it_comes",
        "        # From here on it counts as seen: its other copies would be charged to the origin again.\n"
        "        self.seen_messages.add(message_id)\n",
        "",
    ),
    Row(
        "a cancelled stream call: the nonce is out of step, the *connection* dies",
        "frames are written whole",
        CONNECTIONS,
        "test_libp2p_patches_yamux.py::test_a_cancelled_writer_still_writes_its_whole_frame",
        "with trio.CancelScope(shield=True, deadline=deadline) as scope:",
        "with trio.CancelScope(shield=False, deadline=deadline) as scope:",
    ),
    Row(
        "a WINDOW_UPDATE per read: twice the CPU",
        "half a window at a time",
        CONNECTIONS,
        "test_libp2p_patches_yamux.py::test_windows_are_given_back_by_halves_and_not_by_reads",
        "if missing < self.target_recv_window // 2:",
        "if missing < 1:",
    ),
    Row(
        "no reconnect: a lost peer stays lost",
        "the roster is dialled for ever",
        "gossip/transport/links.py",
        "test_transport.py::test_the_roster_is_dialled_again_after_a_restart_with_the_same_key_and_port",
        "                with trio.move_on_after(peer.backoff.next_s(random.random())):",
        "                return\n                with trio.move_on_after(peer.backoff.next_s(random.random())):",
    ),
    Row(
        "a stopped process goes unnoticed for 75 s",
        "asked every 5 s, given up after 3 s",
        CONNECTIONS,
        "test_libp2p_patches_yamux.py::test_a_peer_that_stops_answering_is_given_up_within_seconds",
        "HEALTH_INTERVAL_S = 5.0",
        "HEALTH_INTERVAL_S = 30.0",
    ),
    Row(
        "half-open, and back with the same key: no gossip while the statistics look healthy",
        "one connection per peer ...",
        "gossip/transport/links.py",
        "test_transport.py::test_crossed_dials_end_as_one_connection_that_carries_everything",
        "            while len(connections := self._live(peer.peer_id)) > 1:",
        "            while len(connections := self._live(peer.peer_id)) > 9:",
    ),
    Row(
        "the same",
        "... and gossip moves to it (end to end: `test_gossip_goes_on_when_a_peer_comes_back_...`)",
        PUBSUB,
        "test_libp2p_patches.py::test_gossip_moves_to_the_connection_that_remains",
        "        if stream is not None and stream.muxed_conn is lost:\n            self._handle_dead_peer(peer_id)\n",
        "        return\n",
    ),
    Row(
        "a peer that ignores the Yamux window: 83 MB become 481 MB",
        "the connection ends",
        CONNECTIONS,
        "test_libp2p_patches_yamux.py::test_a_peer_that_exceeds_the_window_loses_the_connection",
        "        if value < 0:\n            raise",
        "        if False:\n            raise",
    ),
    Row(
        "20,000 idle streams: +92 MB",
        "64 streams per connection, 24 of a stranger",
        CONNECTIONS,
        "test_libp2p_patches_yamux.py::test_a_peer_that_opens_streams_without_end_loses_the_connection",
        "            if len(conn.streams) >= (",
        "            if 0 > (",
    ),
    Row(
        "400 idle connections of one address: honest peers are refused",
        "16 per address that did not prove a key of the roster",
        "gossip/admission.py",
        "test_transport.py::test_connections_of_one_address_are_limited_and_their_places_given_back",
        "            return Refusal.PER_ADDRESS\n",
        "            pass\n",
    ),
    Row(
        "strangers hold the places of the roster",
        "32 places for all strangers; the roster has its own",
        "gossip/admission.py",
        "test_transport.py::test_strangers_compete_for_places_that_the_roster_does_not_need",
        "            if len(self._strangers) > limits.strangers_max and not self._evict_stranger(now):",
        "            if False:",
    ),
    Row(
        "an inbound place is held until the node stops: 250 connections, ever",
        "given back when it ends",
        CONNECTIONS,
        "test_libp2p_patches.py::test_inbound_places_are_given_back_however_a_handshake_ends",
        "                self._admission.close(slot)\n",
        "                pass\n",
    ),
    Row(
        "`host.run` raises an ExceptionGroup when it ends under traffic",
        "one outer nursery is cancelled, after a farewell",
        "gossip/transport/__init__.py",
        "test_transport.py::test_errors_of_the_block_pass_through_unchanged_even_under_traffic",
        "        except Exception as error:  # noqa: BLE001 raised again below, outside of the nursery's group\n"
        "            failure = error\n",
        "        except ZeroDivisionError as error:\n            failure = error\n",
    ),
    Row(
        '`read()` at the end of a stream raises StreamEOF, never b""',
        "the end is an end, and no failure",
        PUBSUB,
        "test_libp2p_patches_gossip.py::test_a_gossip_stream_that_ends_is_no_failure",
        "        except StreamEOF:\n",
        "        except ZeroDivisionError:\n",
    ),
    Row(
        "64 streams of a window each: 16 MiB unread of one connection",
        "4 MiB over all streams, 1 MiB of a stranger",
        CONNECTIONS,
        "test_libp2p_patches_yamux.py::test_what_all_streams_hold_unread_is_bounded",
        "            self.conn.require_read()",
        "            pass",
    ),
    Row(
        "the same of a third of a thousand peers: more than a gigabyte",
        "64 MiB over all connections; who holds more than a window goes",
        CONNECTIONS,
        "test_libp2p_patches_yamux.py::test_when_memory_is_short_who_holds_more_unread_than_others_goes",
        "        if self._all_unread.count > UNREAD_BYTES_TOTAL_MAX and",
        "        if False and",
    ),
    Row(
        "frames of 1 MiB that never become complete, on four streams of every peer",
        "32 MiB over all streams",
        RPC,
        "test_libp2p_patches_gossip.py::test_frames_that_are_not_complete_are_bounded_over_all_streams",
        "            if self._all_frames.count > FRAMES_BYTES_MAX and",
        "            if False and",
    ),
    Row(
        "a peer that floods frames takes all of the CPU",
        "read at 32 MiB/s, a stranger at 1 MiB/s; a frame costs 1 KiB",
        CONNECTIONS,
        "test_libp2p_patches_yamux.py::test_a_flood_is_read_no_faster_than_its_rate",
        "        if ahead_s > 0:\n",
        "        if False:\n",
    ),
    Row(
        "1 MiB of empty entries is 60 MiB once parsed",
        "an RPC's shape is checked before it is parsed",
        RPC,
        "test_libp2p_patches_gossip.py::test_an_rpc_that_would_grow_when_parsed_is_refused_before",
        "        if entries > RPC_ENTRIES_MAX:",
        "        if False:",
    ),
    Row(
        "one message asked for 2,000 times is answered 2,000 times",
        "once",
        PUBSUB,
        "test_libp2p_patches_gossip.py::test_a_message_asked_for_again_and_again_is_sent_once",
        "ids = list(dict.fromkeys(entry.messageIDs[:CONTROL_IDS_MAX]))",
        "ids = list(entry.messageIDs[:CONTROL_IDS_MAX])",
    ),
    Row(
        "256 waiting RPCs of any size, for each peer that does not read",
        "4 MiB per peer, 32 MiB for all",
        RPC,
        "test_libp2p_patches_gossip.py::test_what_waits_is_bounded_in_bytes_per_peer_and_overall",
        "        if self._bytes + size > self._bytes_max or self._shared.count + size > WAITING_BYTES_MAX:",
        "        if False:",
    ),
    Row(
        "messages of 12 heartbeats are kept, however large",
        "16 MiB",
        ROUTER,
        "test_libp2p_patches_gossip.py::test_recent_messages_are_bounded_in_bytes",
        "        while self._bytes > RECENT_BYTES_MAX:",
        "        while False:",
    ),
    Row(
        "12 strangers fill the mesh of a small pool",
        "the mesh consists of the roster",
        ROUTER,
        "test_libp2p_patches_gossip.py::test_strangers_neither_get_gossip_nor_carry_it",
        "        if self._is_wanted(sender_peer_id):\n",
        "        if True:\n",
    ),
    Row(
        "the recent messages to whoever subscribes, as often as it does: 150 messages for 38 bytes",
        "to a peer of the roster, once for each stream",
        ROUTER,
        "test_libp2p_patches_gossip.py::test_recent_messages_go_to_a_peer_of_the_roster_once",
        "if self._is_wanted(peer_id) and self._caught_up.get(peer_id) is not stream:",
        "if True:",
    ),
    Row(
        "no IHAVE for a minute to a peer that pruned us",
        "the back-off is about GRAFT alone",
        ROUTER,
        "test_libp2p_patches_gossip.py::test_a_peer_that_pruned_us_still_hears_of_recent_messages",
        "    def gossip_heartbeat(self) -> Any:",
        "    def unused_heartbeat(self) -> Any:",
    ),
    Row(
        "an entry per stranger that ever came, in five tables",
        "forgotten when it goes",
        "gossip/transport/__init__.py",
        "test_libp2p_patches_gossip.py::test_nothing_is_kept_of_strangers_that_left",
        "        self._pubsub.router.forget(peer_id_of(node_key))\n",
        "",
    ),
    Row(
        "the same: the library's automatic dialler notes every peer that left",
        "it notes nobody, as it dials nobody",
        CONNECTIONS,
        "test_libp2p_patches_gossip.py::test_nothing_is_kept_of_strangers_that_left",
        "        self.auto_connector.record_disconnect = lambda peer_id: None\n",
        "",
    ),
    Row(
        "64 handshakes that take their time keep everybody out",
        "6 s each; of the busiest address one gives way",
        "gossip/admission.py",
        "test_transport_hostile.py::test_handshakes_of_many_do_not_keep_a_peer_out",
        "len(self._handshakes) >= limits.handshakes_max and not self._evict_handshake(address):",
        "len(self._handshakes) >= limits.handshakes_max:",
    ),
    Row(
        "DNS servers are asked, not the host: `localhost` and the hosts file are unknown",
        "the resolver of the host, in threads of its own",
        "gossip/libp2p_patches/naming.py",
        "test_transport_names.py::test_names_of_the_hosts_file_are_known",
        "        if kind not in _FAMILIES:",
        "        if True:",
    ),
    Row(
        "answers of 4 MiB that nobody reads: 64 MiB per stranger",
        "8 MiB per peer, 4 MiB per stranger, 64 MiB for all",
        "gossip/transport/exchange.py",
        "test_transport_hostile.py::test_answers_that_nobody_reads_hold_bounded_memory_and_hold_up_nobody_else",
        "        while not admission.take_answer(place, bytes_max, trio.current_time()):",
        "        while False:",
    ),
    Row(
        "eight peers of the roster open streams and ask nothing: nobody else is answered for 15 s",
        "3 s to ask; who has the most places gives way",
        "gossip/serving.py",
        "test_transport_hostile.py::test_whoever_takes_all_places_and_asks_nothing_holds_up_nobody_else",
        "(is_stranger or not self._make_room(peer, now))",
        "True",
    ),
    Row(
        "a sign of life waits behind answers of megabytes",
        "a place besides, for what is small",
        "gossip/serving.py",
        "test_transport_hostile.py::test_a_small_request_is_answered_while_all_places_are_at_work_and_no_other_one",
        "        if peer not in self._roster or peer in self._spares:",
        "        if True:",
    ),
    Row(
        "addresses that lead nowhere take all places to dial",
        "operators have places of their own",
        "gossip/transport/links.py",
        "test_transport_hostile.py::test_those_that_come_first_are_dialled_while_others_lead_nowhere",
        "self._dials[peer.node_key in self._first]",
        "self._dials[False]",
    ),
    *STREAM_ROWS,
)


def table() -> str:
    """The rows as the page shows them."""
    lines = ["| default of the library, and what was seen | ours | where | test |", "|---|---|---|---|"]
    lines += [
        f"| {row.default} | {row.fix} | `{row.file.removeprefix('gossip/')}` | `{row.test.partition('::')[2]}` |"
        for row in ROWS
    ]
    return "\n".join(lines) + "\n"
