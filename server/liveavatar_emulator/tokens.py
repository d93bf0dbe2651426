"""JSON Web Tokens signed with HMAC-SHA256: the part of RFC 7519 that session and room tokens need."""

import base64
import binascii
import hashlib
import hmac
from typing import Any

import orjson

_HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")


class BadToken(ValueError):
    """The text is no JWT, or its signature is foreign."""


def sign(claims: dict[str, Any], secret: bytes) -> str:
    """Return a compact HS256 JWT over `claims`."""
    body = _HEADER + b"." + base64.urlsafe_b64encode(orjson.dumps(claims)).rstrip(b"=")
    return (body + b"." + _signature(body, secret)).decode("ascii")


def verify(token: str, secret: bytes) -> dict[str, Any]:
    """Return the claims of a token signed with `secret`. The caller, who has the clock, checks expiry.

    Raises:
        BadToken: malformed, or signed with another secret.
    """
    body, _, signature = token.rpartition(".")
    try:
        genuine = hmac.compare_digest(_signature(body.encode("ascii"), secret), signature.encode("ascii"))
    except UnicodeEncodeError as error:
        raise BadToken("not ASCII") from error
    if not genuine:
        raise BadToken("signature does not match")
    return claims_of(token)


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a token by any signer.

    Raises:
        BadToken: not three dot-separated parts with a JSON object in the middle.
    """
    parts = token.split(".")
    if len(parts) != 3:
        raise BadToken("not three parts")
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error) as error:
        raise BadToken("payload is not JSON") from error
    if not isinstance(claims, dict):
        raise BadToken("payload is not an object")
    return claims


def _signature(body: bytes, secret: bytes) -> bytes:
    return base64.urlsafe_b64encode(hmac.new(secret, body, hashlib.sha256).digest()).rstrip(b"=")
