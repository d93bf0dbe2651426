"""Section 2.6: avatars, voices, contexts, credits and secrets."""

from typing import Any

import httpx
from contract.emulator.api_table.table import (
    FOREIGN,
    NOBODY,
    SECRET,
    TEXT,
    WAYNE,
    A,
    Table,
    World,
)

table = Table()
VOICE = "7c2d1e0f-4a5b-4c6d-9e8f-1a2b3c4d5e6f"

# -- reading avatars

for what, path, key in (
    ("stock avatars", "/avatars/public", None),
    ("own avatars", "/avatars", "emulator-key"),
    ("voices", "/voices", "emulator-key"),
    ("contexts", "/contexts", "emulator-key"),
):
    table.answer(
        "2.6",
        f"{what} are paged",
        lambda w, path=path, key=key: w.call("GET", path, key=key),
        status=200,
        data__keys=["count", "next", "previous", "results"],
    )
    table.answer(
        "2.6",
        f"{what}: page_size is at most 100",
        lambda w, path=path, key=key: w.call("GET", path, key=key, params={"page_size": 101}),
        status=422,
    )
table.answer(
    "2.6",
    "stock avatars have a next page",
    lambda w: w.call("GET", "/avatars/public", key=None, params={"page_size": 1}),
    data__next=TEXT,
)


async def _stock(w: World) -> bool:
    rows = (await w.call("GET", "/avatars/public", key=None)).json()["data"]["results"]
    return WAYNE in [row["id"] for row in rows]


table.add("2.6", "the sandbox avatar is among them", _stock, wanted=True)
table.answer("2.6", "no own avatars is the normal case", lambda w: w.call("GET", "/avatars"), data__count=0)


async def _own(w: World, count: int) -> httpx.Response:
    await w.knobs(own_avatars=count)
    return await w.call("GET", "/avatars")


table.answer("2.6", "a knob gives some", lambda w: _own(w, 3), data__count=3)
table.answer("2.6", "one avatar", lambda w: w.call("GET", f"/avatars/{WAYNE}"), status=200, data__name="Wayne")
table.answer(
    "2.6",
    "an unknown avatar",
    lambda w: w.call("GET", f"/avatars/{NOBODY}"),
    status=404,
    message="Avatar not found",
)
table.answer("2.6", "an avatar's id is a UUID", lambda w: w.call("GET", "/avatars/wayne"), status=422)
for field, wanted in {
    "id": WAYNE,
    "type": "VIDEO",
    "status": "ACTIVE",
    "name": "Wayne",
    "preview_url": None,
    "is_expired": False,
    "default_voice": A("id and name", lambda voice: sorted(voice) == ["id", "name"]),
    "is_1080p": True,
    "created_at": TEXT,
    "updated_at": TEXT,
    "error_message": None,
}.items():
    table.answer(
        "2.6", f"an avatar's {field}", lambda w: w.call("GET", f"/avatars/{WAYNE}"), **{f"data__{field}": wanted}
    )


async def _number(w: World, number: int, field: str) -> Any:
    return (await w.own_avatar(number))[field]


table.add("2.6", "an own avatar may be deploying", lambda w: _number(w, 1, "status"), "DEPLOYING")
table.add("2.6", "an own avatar may have expired", lambda w: _number(w, 2, "is_expired"), wanted=True)


async def _use(w: World, number: int) -> httpx.Response:
    return await w.mint(avatar_id=(await w.own_avatar(number))["id"])


table.answer("2.6", "an active one is usable", lambda w: _use(w, 0), status=200)
table.answer("2.6", "one that is deploying is not", lambda w: _use(w, 1), status=400, data__0__loc=["avatar_id"])
table.answer("2.6", "one that has expired is not", lambda w: _use(w, 2), status=400, data__0__loc=["avatar_id"])

# -- changing and deleting avatars


async def _change(w: World, change: dict[str, Any]) -> httpx.Response:
    own = await w.own_avatar()
    return await w.call("PATCH", f"/avatars/{own['id']}", json=change)


table.answer("2.6", "PATCH name", lambda w: _change(w, {"name": "Ada"}), status=200, data__name="Ada")
table.answer(
    "2.6",
    "PATCH default_voice_id",
    lambda w: _change(w, {"default_voice_id": VOICE}),
    status=200,
    data__default_voice={"id": VOICE, "name": "Deep"},
)
table.answer("2.6", "PATCH of nothing", lambda w: _change(w, {}), status=200, data__name="Custom 1")
table.answer(
    "2.6",
    "PATCH with an unknown voice",
    lambda w: _change(w, {"default_voice_id": NOBODY}),
    status=400,
    data__0__loc=["default_voice_id"],
)
table.answer("2.6", "PATCH with an empty name", lambda w: _change(w, {"name": ""}), status=422)


async def _changed(w: World, field: str) -> Any:
    own = await w.own_avatar()
    await w.call("PATCH", f"/avatars/{own['id']}", json={"name": "Ada"})
    return (await w.call("GET", f"/avatars/{own['id']}")).json()["data"][field] != own[field]


table.add("2.6", "a change lasts", lambda w: _changed(w, "name"), wanted=True)
table.add("2.6", "a change moves updated_at", lambda w: _changed(w, "updated_at"), wanted=True)
table.add("2.6", "a change leaves the rest alone", lambda w: _changed(w, "default_voice"), wanted=False)
for method, request in (("PATCH", {"json": {"name": "Mine"}}), ("DELETE", {})):
    for whose, avatar_id, status in (
        ("a stock", WAYNE, 400),
        ("another's", FOREIGN, 400),
        ("an unknown", NOBODY, 404),
    ):
        table.answer(
            "2.6",
            f"{method} of {whose} avatar",
            lambda w, m=method, r=request, a=avatar_id: w.call(m, f"/avatars/{a}", **r),
            status=status,
        )


async def _deleted(w: World) -> tuple[httpx.Response, str]:
    own = await w.own_avatar()
    return await w.call("DELETE", f"/avatars/{own['id']}"), own["id"]


async def _delete_answer(w: World) -> httpx.Response:
    return (await _deleted(w))[0]


table.answer("2.6", "DELETE answers with null", _delete_answer, status=200, data=None)


async def _listed_after(w: World) -> httpx.Response:
    await _deleted(w)
    return await w.call("GET", "/avatars")


table.answer("2.6", "a deleted avatar is no longer listed", _listed_after, data__count=4)
for what, method, status in (("read", "GET", 404), ("deleted again", "DELETE", 404)):

    async def _again(w: World, method: str = method) -> httpx.Response:
        _, avatar_id = await _deleted(w)
        return await w.call(method, f"/avatars/{avatar_id}")

    table.answer("2.6", f"a deleted avatar cannot be {what}", _again, status=status)


async def _mint_deleted(w: World) -> httpx.Response:
    _, avatar_id = await _deleted(w)
    return await w.mint(avatar_id=avatar_id)


table.answer("2.6", "a deleted avatar cannot be used", _mint_deleted, status=400, code=4000)


async def _start_deleted(w: World) -> httpx.Response:
    own = await w.own_avatar()
    token = await w.token(avatar_id=own["id"])
    await w.call("DELETE", f"/avatars/{own['id']}")
    return await w.start_with(token)


table.answer("2.6", "nor with a token from before", _start_deleted, status=400, code=4000)


async def _end_with_avatar(w: World) -> Any:
    own = await w.own_avatar()
    session = await w.session(avatar_id=own["id"])
    await w.call("DELETE", f"/avatars/{own['id']}")
    return (await w.entry(session))["end_reason"]


table.add("2.6", "a session ends with its avatar", _end_with_avatar, "AVATAR_DELETED")

# -- voices and contexts

table.answer(
    "2.6",
    "a voice's fields",
    lambda w: w.call("GET", "/voices"),
    data__results__0__keys=["created_at", "description", "gender", "id", "language", "name", "tags", "updated_at"],
)
table.answer(
    "2.6", "no private voices", lambda w: w.call("GET", "/voices", params={"voice_type": "private"}), data__count=0
)
table.answer(
    "2.6",
    "voice_type is public or private",
    lambda w: w.call("GET", "/voices", params={"voice_type": "all"}),
    status=422,
)
table.answer("2.6", "no contexts", lambda w: w.call("GET", "/contexts"), data__count=0)

# -- credits

table.answer(
    "2.6",
    "credits are a text with two decimals",
    lambda w: w.call("GET", "/users/credits"),
    data__credits_left="1000.00",
)


async def _balance(w: World) -> httpx.Response:
    await w.knobs(credits=12.5)
    return await w.call("GET", "/users/credits")


table.answer("2.6", "credits are what the knob says", _balance, data__credits_left="12.50")

# -- secrets

for section, secret_type in (
    ("2.6", "ELEVENLABS_API_KEY"),
    ("2.6", "LLM_API_KEY"),
    ("2.6", "OPENAI_API_KEY"),
    ("2.6", "GEMINI_API_KEY"),
    ("3.11", "CARTESIA_API_KEY"),
):
    table.answer(
        section, f"a secret of type {secret_type}", lambda w, t=secret_type: w.secret(secret_type=t), status=200
    )
table.answer("2.6", "a secret of no other type", lambda w: w.secret(secret_type="AWS_KEY"), status=422)
for field in SECRET:
    table.answer(
        "2.6",
        f"a secret needs {field}",
        lambda w, f=field: w.secret(without=f),
        status=422,
        detail__0__loc=["body", field],
    )
    table.answer("2.6", f"a secret's {field} is not empty", lambda w, f=field: w.secret(**{f: ""}), status=422)
table.answer(
    "2.6", "a secret's name has at most 255 characters", lambda w: w.secret(secret_name="n" * 256), status=422
)
table.answer(
    "2.6", "a secret's name has up to 255 characters", lambda w: w.secret(secret_name="n" * 255), status=200
)
table.answer("2.6", "a new secret's answer", lambda w: w.secret(), data__keys=["id", "secret_name"])
table.answer("2.6", "a new secret's id", lambda w: w.secret(), data__id=TEXT)


async def _secrets(w: World) -> httpx.Response:
    await w.secret(secret_name="older")
    await w.advance(1)
    await w.secret(secret_name="newer")
    return await w.call("GET", "/secrets")


table.answer(
    "2.6", "a listed secret's fields", _secrets, data__0__keys=["created_at", "id", "secret_name", "secret_type"]
)
table.answer(
    "2.6", "the newest secret comes first", _secrets, data__0__secret_name="newer", data__1__secret_name="older"
)
for what, call in {
    "the answer": lambda w: w.secret(),
    "the list": _secrets,
    "a refusal of its name": lambda w: w.secret(secret_name=7),
    "a refusal of its type": lambda w: w.secret(secret_type="AWS_KEY"),
    "a refusal of the value": lambda w: w.secret(secret_value=["sk-do-not-repeat-this"]),
    "a refusal for a missing field": lambda w: w.secret(without="secret_name"),
    "a refusal of the whole body": lambda w: w.call("POST", "/secrets", json="sk-do-not-repeat-this"),
}.items():

    async def _told(w: World, call: Any = call) -> bool:
        return "sk-do-not-repeat-this" in (await call(w)).text

    table.add("2.6", f"a secret's value is not in {what}", _told, wanted=False)


async def _foreign_secrets(w: World) -> httpx.Response:
    await w.secret()
    return await w.call("GET", "/secrets", key="other-key")


table.answer("2.6", "another account does not see a secret", _foreign_secrets, data=[])


async def _gone(w: World) -> httpx.Response:
    secret_id = (await w.secret()).json()["data"]["id"]
    await w.call("DELETE", f"/secrets/{secret_id}")
    return await w.call("GET", "/secrets")


table.answer("2.6", "a secret can be deleted", _gone, data=[])
table.answer("2.6", "an unknown secret cannot", lambda w: w.call("DELETE", f"/secrets/{NOBODY}"), status=404)


async def _unknown_secret(w: World) -> httpx.Response:
    await w.knobs(strict=True)
    return await w.mint(cartesia_agent_config={"secret_id": NOBODY, "agent_id": "agent_1"})


table.answer(
    "3.11",
    "5 strict mode refuses a secret that nobody stored",
    _unknown_secret,
    status=400,
    code=4000,
    data__0__message=f"Secret with id '{NOBODY}' not found in your space",
)
