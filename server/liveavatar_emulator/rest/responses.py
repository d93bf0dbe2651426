"""Envelope of a successful response, and the pages of a list."""

from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from pydantic import BaseModel, Field

from liveavatar_emulator.routing import json_response
from liveavatar_emulator.service import Emulator


class Paging(BaseModel):
    """Page of a list."""

    page: int = Field(default=1, ge=1)
    page_size: int = Field(default=20, ge=1, le=100)


def success(emulator: Emulator, data: Any, status: int = 200) -> Response:
    """Return `data` in the envelope, with the success code of the settings."""
    return json_response({"code": emulator.settings.success_code, "data": data, "message": "Success"}, status)


def page(request: Request, emulator: Emulator, rows: list[dict[str, Any]], paging: Paging) -> Response:
    """Return one page of `rows`; `next` and `previous` are whole URLs that keep the rest of the query."""

    def link(number: int) -> str:
        query = {**request.query_params, "page": number, "page_size": paging.page_size}
        return str(request.url.replace(query=urlencode(query)))

    first = (paging.page - 1) * paging.page_size
    more = first + paging.page_size < len(rows)
    data = {
        "count": len(rows),
        "next": link(paging.page + 1) if more else None,
        "previous": link(paging.page - 1) if paging.page > 1 else None,
        "results": rows[first : first + paging.page_size],
    }
    return success(emulator, data)
