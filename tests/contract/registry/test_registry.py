"""Conformance suite of registries. A new registry is added to `conftest.py` and passes all of it."""

import time

import pytest

from liveavatar_gateway.core.errors import OwnerMoved
from liveavatar_gateway.registry.base import Fence, HandleHash, LeaseConfig

FACTS = {"avatar_id": "a-1", "labels": {"desk": "7"}, "grace_s": 30.5}


def _writes(registry, fence):
    """Everything that a fence allows, each as a callable."""
    return {
        "save": lambda: registry.save(fence, {"changed": True}),
        "add_upstream": lambda: registry.add_upstream(fence, "up-9"),
        "save_access": lambda: registry.save_access(fence, "up-1", {"ws_url": "ws://elsewhere"}),
        "finish": lambda: registry.finish(fence, {"changed": True}, retention_s=60),
        "quarantine": lambda: registry.quarantine(fence, "its payload is no JSON"),
    }


def _notes(registry, fence):
    """Everything that is noted from the event loop, each as a callable."""
    return {
        "sequence": lambda: registry.journal_sequence(fence, 99),
        "utterance": lambda: registry.journal_utterance(fence, "u-1", {"changed": True}),
        "handles": lambda: registry.journal_handles(fence, [HandleHash("changed")]),
    }


async def _done(work):
    await work()


# --- what is kept


async def test_a_new_session_is_found_by_every_process(mine, other):
    fence = await mine.create("s-1", FACTS)
    row = await other.find("s-1")
    assert (row.session_id, row.owner, row.epoch, row.payload) == ("s-1", mine.owner, fence.epoch, FACTS)
    assert (row.ended, row.sequence, row.utterances, row.upstreams, row.handles) == (False, 0, (), (), ())


async def test_what_never_was_is_not_found(mine):
    assert await mine.find("s-0") is None


async def test_the_newest_session_of_a_request_is_found_by_every_process(mine, other):
    await mine.create("s-1", FACTS)
    assert await other.find_request("wish", tenant="") is None
    await mine.reserve("s-2", FACTS, tenant="", request_id="wish")
    assert (await other.find_request("wish", tenant="")).session_id == "s-2"
    await other.reserve("s-3", FACTS, tenant="", request_id="wish", instead_of="s-2")
    assert (await mine.find_request("wish", tenant="")).session_id == "s-3"
    assert await mine.find_request("", tenant="") is None, "sessions without a request are not of the same one"


async def test_facts_are_replaced_whole(mine, other):
    fence = await mine.create("s-1", FACTS)
    await mine.save(fence, {"state": "ready"})
    assert (await other.find("s-1")).payload == {"state": "ready"}


async def test_utterances_come_in_the_order_they_were_begun_with_what_was_noted_last(mine, other):
    fence = await mine.create("s-1", FACTS)
    for name, position in (("b", 1), ("a", 1), ("b", 2), ("c", 1), ("a", 7)):
        mine.journal_utterance(fence, name, {"cut": position})
    assert (await other.find("s-1")).utterances == (("b", {"cut": 2}), ("a", {"cut": 7}), ("c", {"cut": 1}))


async def test_the_last_sequence_and_the_handles_are_kept(mine, other):
    fence = await mine.create("s-1", FACTS)
    mine.journal_sequence(fence, 12)
    mine.journal_handles(fence, [HandleHash("old", 1234.5), HandleHash("new")])
    row = await other.find("s-1")
    assert (row.sequence, row.handles) == (12, (HandleHash("old", 1234.5), HandleHash("new")))


async def test_access_to_what_runs_upstream_is_kept_and_opened(mine, other):
    fence = await mine.create("s-1", FACTS)
    await mine.add_upstream(fence, "up-1")
    await mine.add_upstream(fence, "up-2")
    await mine.save_access(fence, "up-1", {"ws_url": "ws://secret", "limit_s": 600.0})
    row = await other.find("s-1")
    assert [(one.upstream_session_id, one.access) for one in row.upstreams] == [
        ("up-1", {"ws_url": "ws://secret", "limit_s": 600.0}),
        ("up-2", None),
    ]
    assert "secret" not in repr(row)


async def test_our_own_sessions_are_told_from_those_of_others_upstream(mine, other):
    fence = await mine.create("s-1", FACTS)
    await mine.add_upstream(fence, "up-1")
    assert await other.session_ids(["up-0", "up-1"]) == {"up-1": "s-1"}
    await other.drop_upstream("up-1")
    assert await other.session_ids(["up-0", "up-1"]) == {}


async def test_sessions_are_listed_newest_first_in_pages(mine, other):
    for number in range(5):
        await mine.create(f"s-{number}", FACTS)
    assert [row.session_id for row in await other.page("", 2)] == ["s-4", "s-3"]
    assert [row.session_id for row in await other.page("s-3", 9)] == ["s-2", "s-1", "s-0"]


async def test_another_account_in_the_same_place_is_not_touched(shared, mine):
    stranger = await shared.join(account="another")
    fence = await mine.create("s-1", FACTS)
    await mine.add_upstream(fence, "up-1")
    shared.kill(mine)
    assert await stranger.find("s-1") is None
    assert list(await stranger.orphans()) == []
    assert list(await stranger.page("", 9)) == []
    assert await stranger.session_ids(["up-1"]) == {}


# --- the end


async def test_an_ended_session_keeps_its_final_record_alone(mine, other):
    fence = await mine.create("s-1", FACTS)
    await mine.add_upstream(fence, "up-1")
    mine.journal_utterance(fence, "u-1", {"cut": 1})
    await mine.drop_upstream("up-1")
    assert await mine.finish(fence, {"end": "CALLER_ENDED"}, retention_s=60)
    row = await other.find("s-1")
    assert (row.ended, row.payload, row.utterances, row.upstreams) == (True, {"end": "CALLER_ENDED"}, (), ())


async def test_a_final_record_is_forgotten_when_its_time_is_over(mine):
    short, long = await mine.create("s-1", FACTS), await mine.create("s-2", FACTS)
    await mine.finish(short, FACTS, retention_s=-1)
    await mine.finish(long, FACTS, retention_s=60)
    await mine.purge()
    assert await mine.find("s-1") is None
    assert await mine.find("s-2") is not None


async def test_a_session_that_was_not_stopped_upstream_is_left_for_others_to_stop(shared, mine, other):
    fence = await mine.create("s-1", FACTS)
    await mine.add_upstream(fence, "up-1")
    assert not await mine.finish(fence, {"end": "DRAINED"}, retention_s=60)
    await mine.__aexit__(None, None, None)
    shared.forget(mine)
    (row,) = await other.orphans()
    assert (row.session_id, row.ended, row.payload) == ("s-1", False, {"end": "DRAINED"})


# --- who owns it


async def test_a_process_is_told_what_it_owns_when_it_renews(mine, other):
    await mine.create("s-1", FACTS)
    await other.create("s-2", FACTS)
    await mine.finish(await mine.create("s-3", FACTS), FACTS, retention_s=60)
    assert await mine.renew("127.0.0.1:1") == {"s-1": 1}


async def test_others_are_told_where_the_owner_serves_and_when_it_was_seen(mine, other):
    await mine.create("s-1", FACTS)
    before_s = time.monotonic()
    await mine.renew("127.0.0.1:50051")
    row = await other.find("s-1")
    assert row.address == "127.0.0.1:50051"
    assert before_s - 0.001 <= row.seen_mono_s <= time.monotonic() + 0.001


@pytest.mark.parametrize("write", ["create", "reserve", "save", "finish"])
async def test_others_are_told_when_the_facts_were_saved(mine, other, write):
    fence = None if write in {"create", "reserve"} else await mine.create("s-1", FACTS)
    before_s = time.monotonic()
    match write:
        case "create":
            await mine.create("s-1", FACTS)
        case "reserve":
            await mine.reserve("s-1", FACTS, tenant="", request_id="wish")
        case "save":
            await mine.save(fence, FACTS)
        case _:
            await mine.finish(fence, FACTS, retention_s=60)
    assert before_s <= (await other.find("s-1")).saved_mono_s <= time.monotonic()


async def test_sessions_of_a_living_process_are_no_orphans(mine, other):
    await mine.create("s-1", FACTS)
    assert list(await other.orphans()) == []
    assert not await other.is_abandoned(await other.find("s-1"))


async def test_a_killed_process_leaves_its_living_sessions_as_orphans_at_once(shared, mine, other):
    await mine.create("s-1", FACTS)
    await mine.finish(await mine.create("s-2", FACTS), FACTS, retention_s=60)
    await mine.create("s-3", FACTS)
    shared.kill(mine)
    assert [row.session_id for row in await other.orphans()] == ["s-1", "s-3"]
    assert await other.is_abandoned(await other.find("s-1"))
    assert not await other.is_abandoned(await other.find("s-2"))


async def test_a_process_that_is_seen_alive_keeps_its_sessions_however_late_its_lease_is(shared, other):
    late = await shared.join(lease=LeaseConfig(ttl_s=-100.0))
    await late.create("s-1", FACTS)
    assert list(await other.orphans()) == []


async def test_a_claim_raises_the_epoch_and_moves_the_session(shared, mine, other):
    fence = await mine.create("s-1", FACTS)
    mine.journal_sequence(fence, 5)
    shared.kill(mine)
    (row,) = await other.orphans()
    claimed = await other.claim(row)
    assert claimed == Fence("s-1", 2)
    other.journal_sequence(claimed, 6)
    row = await other.find("s-1")
    assert (row.owner, row.epoch, row.sequence) == (other.owner, 2, 6)
    assert list(await other.orphans()) == []


async def test_of_two_that_claim_one_session_one_gets_it(shared, mine, other):
    third = await shared.join()
    await mine.create("s-1", FACTS)
    shared.kill(mine)
    rows = [(await registry.orphans())[0] for registry in (other, third)]
    assert [(await other.claim(rows[0])), (await third.claim(rows[1]))] == [Fence("s-1", 2), None]


async def test_what_has_ended_cannot_be_claimed(mine, other):
    fence = await mine.create("s-1", FACTS)
    row = await other.find("s-1")
    await mine.finish(fence, FACTS, retention_s=60)
    assert await other.claim(row) is None


@pytest.mark.parametrize("write", list(_writes(None, None)))
async def test_an_owner_that_lost_its_session_can_write_nothing_about_it(mine, other, write):
    fence = await mine.create("s-1", FACTS)
    await mine.add_upstream(fence, "up-1")
    (await other.claim(await other.find("s-1")))
    before = await other.find("s-1")
    with pytest.raises(OwnerMoved):
        await _done(_writes(mine, fence)[write])
    assert await other.find("s-1") == before
    assert await mine.renew("") == {}


@pytest.mark.parametrize("write", list(_writes(None, None)))
async def test_the_owner_can_write_all_of_that(mine, write):
    fence = await mine.create("s-1", FACTS)
    await mine.add_upstream(fence, "up-1")
    before = await mine.find("s-1")
    await _done(_writes(mine, fence)[write])
    assert await mine.find("s-1") != before


@pytest.mark.parametrize("note", list(_notes(None, None)))
async def test_what_an_owner_notes_after_it_lost_its_session_counts_for_nothing(mine, other, note):
    """A note waits for nobody, so it is the next write that tells the owner."""
    fence = await mine.create("s-1", FACTS)
    mine.journal_sequence(fence, 1)
    await other.claim(await other.find("s-1"))
    before = await other.find("s-1")
    _notes(mine, fence)[note]()
    assert await other.find("s-1") == before
    with pytest.raises(OwnerMoved):
        await mine.save(fence, FACTS)
    assert await other.find("s-1") == before


@pytest.mark.parametrize("note", list(_notes(None, None)))
async def test_what_was_noted_is_seen_at_once_and_stays_through_writes(mine, other, note):
    fence = await mine.create("s-1", FACTS)
    before = await other.find("s-1")
    _notes(mine, fence)[note]()
    noted = await other.find("s-1")
    assert noted != before
    await mine.save(fence, FACTS)
    assert await other.find("s-1") == noted


async def test_a_request_is_reserved_once_and_given_again_only_in_place_of_the_session_that_was_looked_at(
    mine, other
):
    assert await mine.reserve("s-1", FACTS, tenant="", request_id="wish") == Fence("s-1", 1)
    assert await other.reserve("s-2", FACTS, tenant="", request_id="wish") is None
    assert await other.find("s-2") is None
    assert await other.reserve("s-3", FACTS, tenant="", request_id="wish", instead_of="s-1") == Fence("s-3", 1)
    assert await mine.reserve("s-4", FACTS, tenant="", request_id="wish", instead_of="s-1") is None
    assert (await mine.find_request("wish", tenant="")).session_id == "s-3"


async def test_orphans_made_with_a_retired_key_are_found_and_those_of_other_keys_counted(shared, mine):
    fence = await mine.create("s-1", FACTS)
    await mine.add_upstream(fence, "up-1")
    shared.kill(mine)
    successor = await shared.join(account="fresh", retired_accounts=["account"])
    stranger = await shared.join(account="strange")
    (row,) = await successor.orphans()
    assert (row.session_id, row.account, [one.upstream_session_id for one in row.upstreams]) == (
        "s-1",
        "account",
        ["up-1"],
    )
    assert dict(await successor.other_accounts()) == {}
    assert dict(await stranger.other_accounts()) == {"account": 1}
    assert list(await stranger.orphans()) == []


async def test_an_orphan_is_counted_for_the_account_on_which_it_runs(shared, mine):
    """A process that lacks the key of that account cannot end it, whatever account stored it."""
    fence = await mine.create("s-1", FACTS)
    await mine.add_upstream(fence, "up-1", account="spare")
    shared.kill(mine)
    successor = await shared.join(account="account")
    assert list(await successor.orphans()) == []
    assert dict(await successor.other_accounts()) == {"spare": 1}
    successor.use_accounts(["spare"])
    assert [row.session_id for row in await successor.orphans()] == ["s-1"]
    assert dict(await successor.other_accounts()) == {}


async def test_the_owner_learns_that_somebody_else_wants_an_end_and_the_first_reason_stays(mine, other):
    await mine.create("s-1", FACTS)
    assert await mine.end_requests() == {}
    await other.request_end("s-1", "CALLER_ENDED")
    await other.request_end("s-1", "OPERATOR")
    assert await mine.end_requests() == {"s-1": "CALLER_ENDED"}
    assert await other.end_requests() == {}
    assert (await mine.find("s-1")).end_request == "CALLER_ENDED"


async def test_a_wanted_end_goes_with_the_session_to_whoever_claims_it(mine, other):
    await mine.create("s-1", FACTS)
    await other.request_end("s-1", "OPERATOR")
    (await other.claim(await other.find("s-1")))
    assert await other.end_requests() == {"s-1": "OPERATOR"}
    assert await mine.end_requests() == {}


async def test_what_has_ended_stays_as_it_ended(mine, other):
    fence = await mine.create("s-1", FACTS)
    await mine.finish(fence, FACTS, retention_s=60)
    await other.request_end("s-1", "OPERATOR")
    assert (await other.find("s-1")).end_request == ""
    assert await mine.end_requests() == {}


async def test_dead_processes_are_forgotten_when_they_own_nothing(shared, mine, other):
    fence = await mine.create("s-1", FACTS)
    await mine.renew("127.0.0.1:1")
    shared.kill(mine)
    await other.purge()
    assert (await other.find("s-1")).address == "127.0.0.1:1"
    (await other.claim(await other.find("s-1")))
    await other.purge()
    assert fence.epoch == 1
    assert (await other.find("s-1")).owner == other.owner


# --- from one session to another


async def test_a_liveavatar_session_moves_from_one_session_to_another_in_one_step(mine, other):
    source, target = await mine.create("warm", FACTS), await mine.create("s-1", FACTS)
    await mine.add_upstream(source, "up-1")
    await mine.save_access(source, "up-1", {"ws_url": "ws://up"})
    await mine.move_upstream(source, target, "up-1")
    assert (await other.find("warm")).upstreams == ()
    (moved,) = (await other.find("s-1")).upstreams
    assert (moved.upstream_session_id, moved.access) == ("up-1", {"ws_url": "ws://up"})
    assert await mine.finish(source, FACTS, retention_s=0)
    assert not await mine.finish(target, FACTS, retention_s=0)


@pytest.mark.parametrize("claimed", ["warm", "s-1"])
async def test_nothing_moves_from_or_to_a_session_of_another_process(mine, other, claimed):
    fences = {name: await mine.create(name, FACTS) for name in ("warm", "s-1")}
    await mine.add_upstream(fences["warm"], "up-1")
    await other.claim(await other.find(claimed))
    with pytest.raises(OwnerMoved):
        await mine.move_upstream(fences["warm"], fences["s-1"], "up-1")
    assert len((await mine.find("warm")).upstreams) == 1
    assert (await mine.find("s-1")).upstreams == ()


async def test_what_a_session_does_not_have_does_not_move(mine):
    source, target = await mine.create("warm", FACTS), await mine.create("s-1", FACTS)
    with pytest.raises(OwnerMoved):
        await mine.move_upstream(source, target, "up-1")
