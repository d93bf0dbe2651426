"""Sections 2.5 and 7.1: what is read of sessions, and what they cost."""

import json
from typing import Any

import httpx
from contract.emulator.api_table.life_rows import active_count
from contract.emulator.api_table.table import ABSENT, AVATAR, NOBODY, TEXT, WAYNE, A, Table, World

table = Table()
MOMENT = A("UTC moment", lambda value: isinstance(value, str) and value[10] == "T" and value.endswith("Z"))

# -- 2.5: reading


async def _listed(w: World, sessions: int, **params: Any) -> httpx.Response:
    for _ in range(sessions):
        await w.session()
    return await w.call("GET", "/sessions", params=params)


for what, params in {
    "type is required": {},
    "type is active or historic": {"type": "all"},
    "page_size is at least 1": {"type": "active", "page_size": 0},
    "page_size is at most 100": {"type": "active", "page_size": 101},
    "page is at least 1": {"type": "active", "page": 0},
}.items():
    table.answer("2.5", what, lambda w, params=params: _listed(w, 0, **params), status=422)
table.answer("2.5", "page_size 100", lambda w: _listed(w, 0, type="active", page_size=100), status=200)
table.answer(
    "2.5",
    "a list has four fields",
    lambda w: _listed(w, 0, type="active"),
    data__keys=["count", "next", "previous", "results"],
)
table.answer("2.5", "count is of all pages", lambda w: _listed(w, 3, type="active", page_size=1), data__count=3)


async def _page_lengths(w: World) -> list[int]:
    first = (await _listed(w, 21, type="active")).json()["data"]
    second = (await w.http.get(first["next"], headers={"X-API-KEY": "emulator-key"})).json()["data"]
    return [len(first["results"]), len(second["results"])]


table.add("2.5", "twenty to a page by default, and `next` leads on", _page_lengths, [20, 1])
for page, neighbours in ((1, (None, 2)), (2, (1, 3)), (3, (2, None))):

    async def _links(w: World, page: int = page) -> tuple[int | None, ...]:
        data = (await _listed(w, 3, type="active", page=page, page_size=1)).json()["data"]
        pages = (data["previous"], data["next"])
        return tuple(url and int(httpx.URL(url).params["page"]) for url in pages)

    table.add("2.5", f"previous and next of page {page} of 3", _links, neighbours)


async def _kept_query(w: World) -> dict[str, str]:
    data = (await _listed(w, 2, type="active", page_size=1, avatar_id=AVATAR)).json()["data"]
    return dict(httpx.URL(data["next"]).params)


table.add(
    "2.5",
    "links keep the rest of the query",
    _kept_query,
    {"type": "active", "page_size": "1", "avatar_id": AVATAR, "page": "2"},
)
table.answer(
    "2.5", "a page beyond the last is empty", lambda w: _listed(w, 1, type="active", page=9), data__results=[]
)
table.answer(
    "2.5", "avatar_id filters in", lambda w: _listed(w, 2, type="active", avatar_id=AVATAR), data__count=2
)
table.answer(
    "2.5", "avatar_id filters out", lambda w: _listed(w, 2, type="active", avatar_id=WAYNE), data__count=0
)
table.answer(
    "2.5", "embed_id matches nothing", lambda w: _listed(w, 2, type="active", embed_id="e"), data__count=0
)


async def _by_context(w: World, context_id: str) -> httpx.Response:
    await w.start(openai_realtime_config={"secret_id": NOBODY, "context_id": AVATAR})
    return await w.call("GET", "/sessions", params={"type": "active", "context_id": context_id})


table.answer("2.5", "context_id is that of a connector", lambda w: _by_context(w, AVATAR), data__count=1)
table.answer("2.5", "context_id filters out", lambda w: _by_context(w, NOBODY), data__count=0)


async def _kinds(w: World) -> tuple[int, int]:
    await w.session()
    await w.stopped()
    historic = await w.call("GET", "/sessions", params={"type": "historic"})
    return await active_count(w), historic.json()["data"]["count"]


table.add("2.5", "a session that has ended is historic and no longer active", _kinds, (0, 2))


async def _newest_first(w: World) -> bool:
    older = await w.session()
    await w.advance(1)
    newer = await w.session()
    rows = (await w.call("GET", "/sessions", params={"type": "active"})).json()["data"]["results"]
    return [row["id"] for row in rows] == [newer.id, older.id]


table.add("2.5", "the newest comes first", _newest_first, wanted=True)


async def _entry_now(w: World, **order: Any) -> dict[str, Any]:
    session = await w.session(**order)
    await w.advance(90)
    return await w.entry(session)


for field, wanted in {
    "id": TEXT,
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "duration": 90,
    "source": "API",
    "mode": "LITE",
    "is_sandbox": False,
    "credits_consumed": 2,
    "end_at": ABSENT,
    "end_reason": ABSENT,
    "state": ABSENT,
}.items():

    async def _active_field(w: World, field: str = field) -> Any:
        return (await _entry_now(w)).get(field, ABSENT)

    table.add("2.5", f"an active entry: {field}", _active_field, wanted)
for field, wanted in {
    "duration": 250,
    "credits_consumed": 5,
    "end_at": MOMENT,
    "end_reason": "USER_CLOSED",
    "mode": "LITE",
    "source": "API",
}.items():

    async def _historic_field(w: World, field: str = field) -> Any:
        return (await w.stopped()).get(field, ABSENT)

    table.add("2.5", f"a historic entry of 250 s: {field}", _historic_field, wanted)


async def _in_list(w: World) -> bool:
    entry = await w.stopped()
    rows = (await w.call("GET", "/sessions", params={"type": "historic"})).json()["data"]["results"]
    return rows == [entry]


table.add("2.5", "list and get show the same entry", _in_list, wanted=True)


async def _transcript(w: World, **params: Any) -> httpx.Response:
    session = await w.session()
    return await w.call("GET", f"/sessions/{session.id}/transcript", params=params)


table.answer("2.5", "transcript: session_active", _transcript, data__session_active=True)
table.answer("2.5", "transcript: next_timestamp", _transcript, data__next_timestamp=None)
table.answer("2.5", "transcript: empty in LITE mode", _transcript, data__transcript_data=[])
table.answer(
    "2.5",
    "transcript of a span",
    lambda w: _transcript(w, start_timestamp=0, end_timestamp=10),
    status=200,
    data__transcript_data=[],
)
table.answer("2.5", "a timestamp is a number", lambda w: _transcript(w, start_timestamp="noon"), status=422)
table.answer("2.5", "transcript of nothing", lambda w: w.call("GET", f"/sessions/{NOBODY}/transcript"), status=404)


async def _transcript_later(w: World) -> httpx.Response:
    entry = await w.stopped()
    return await w.call("GET", f"/sessions/{entry['id']}/transcript")


table.answer("2.5", "transcript of an ended session", _transcript_later, data__session_active=False)


async def _erase(w: World, *, by_key: bool) -> httpx.Response:
    session = await w.session()
    credential = {} if by_key else {"key": None, "bearer": session.token}
    return await w.call("DELETE", f"/sessions/{session.id}/events", **credential)


table.answer("2.5", "events are erased by key", lambda w: _erase(w, by_key=True), status=200, data=None)
table.answer("2.5", "events are erased by bearer", lambda w: _erase(w, by_key=False), status=200, data=None)
table.answer("2.5", "no events of nothing", lambda w: w.call("DELETE", f"/sessions/{NOBODY}/events"), status=404)


async def _erased(w: World) -> bool:
    session = await w.session()
    await w.call("DELETE", f"/sessions/{session.id}/events")
    return bool((await w.recording(session))["events_erased"])


table.add("2.5", "the emulator notes that events were erased", _erased, wanted=True)


async def _not_logged(w: World) -> bool:
    session = await w.session()
    entry = json.dumps(await w.entry(session))
    return session.token in entry or session.ws_url in entry


table.add("2.5", "an entry shows neither token nor ws_url", _not_logged, wanted=False)

# -- 7.1: credits


async def _spent(
    w: World, seconds: float, *, knobs: dict[str, Any] | None = None, **order: Any
) -> tuple[Any, Any]:
    if knobs:
        await w.knobs(**knobs)
    session = await w.session(**order)
    await w.advance(seconds)
    return (await w.entry(session)).get("end_reason", ABSENT), await w.credits()


for rule, seconds, knobs, wanted in (
    ("a minute is taken at start", 0, {}, (ABSENT, "999.00")),
    ("the first minute costs one credit", 59.9, {}, (ABSENT, "999.00")),
    ("the second minute costs another", 60, {}, (ABSENT, "998.00")),
    ("three minutes cost three", 179.9, {}, (ABSENT, "997.00")),
    ("a balance runs down to its fraction", 0, {"credits": 1.5}, (ABSENT, "0.50")),
    ("a session ends when the next minute cannot be paid", 60, {"credits": 1.5}, ("NO_CREDITS", "0.50")),
    ("and not before", 59.9, {"credits": 1}, (ABSENT, "0.00")),
    ("with overage it goes on", 179.9, {"credits": 1, "overage": True}, (ABSENT, "0.00")),
):
    table.add("7.1", rule, lambda w, s=seconds, k=knobs: _spent(w, s, knobs=k), wanted)


async def _free_sandbox(w: World) -> tuple[Any, Any]:
    return await _spent(w, 60, knobs={"credits": 0}, is_sandbox=True, avatar_id=WAYNE)


table.add(
    "7.1",
    "a sandbox session costs nothing, and ends after a minute",
    _free_sandbox,
    ("MAX_DURATION_REACHED", "0.00"),
)


async def _two_sessions(w: World) -> str:
    await w.session()
    await w.session()
    await w.advance(60)
    return await w.credits()


table.add("7.1", "every session costs its own minutes", _two_sessions, "996.00")
table.answer(
    "7.1",
    "no start with less than a minute",
    lambda w: w.start(knobs={"credits": 0.99}),
    status=403,
    code=4033,
)
table.answer("7.1", "a start with exactly a minute", lambda w: w.start(knobs={"credits": 1}), status=201)
table.answer(
    "7.1",
    "with overage a start needs no credit",
    lambda w: w.start(knobs={"credits": 0, "overage": True}),
    status=201,
)


async def _shared(w: World) -> str:
    token = (await w.mint(key="twin-key-1")).json()["data"]["session_token"]
    await w.start_with(token)
    return str((await w.call("GET", "/users/credits", key="twin-key-2")).json()["data"]["credits_left"])


table.add("7.1", "keys of one account share its credits", _shared, "999.00")


async def _sandbox_entry(w: World) -> Any:
    session = await w.session(is_sandbox=True, avatar_id=WAYNE)
    await w.advance(30)
    return (await w.entry(session))["credits_consumed"]


table.add("7.1", "a sandbox entry consumed nothing", _sandbox_entry, 0)
