"""The route `/sign-in`: the link that `imgflow up` prints, and the form that takes a token.

Neither needs JavaScript. The request that brings a key uses it up, and the answer redirects away
from the address with the key, so no working key stays in a log or in the browser's history. The
routes for programs are `/session`, in `imgflow.api.routes.sharing`.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from imgflow.api.backend.connections import Connected, Connections
from imgflow.api.gallery.rendering import PageRoute, gallery_of
from imgflow.api.http.bodies import MOST_JSON_BYTES, pieces
from imgflow.api.http.problems import Refused
from imgflow.api.routes.sharing import replace_session
from imgflow.api.routing import get
from imgflow.settings.tokens import Token

router = APIRouter(route_class=PageRoute)

MOST_FIELDS = 10

# Matches only paths of this server: browsers take `//host` and `/\host` for another server, after
# removing tabs and newlines.
OWN_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")


@get(router, "/sign-in", access="open", include_in_schema=False, response_class=HTMLResponse)
async def read_sign_in(
    request: Request,
    connections: Connected,
    key: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Begin a session with a key; without one, say how to sign in."""
    request.state.wanted = _gallery(request)
    if not key or request.method == "HEAD":  # link previews send HEAD
        return gallery_of(request).sign_in_page(request, "Sign in")
    token = await _token_of_key(connections, key)
    if token is None:
        raise Refused("key_refused", "Take a new one, or sign in with a token.")
    return await _signed_in(request, connections, token, _gallery(request))


@router.post("/sign-in", include_in_schema=False)
async def sign_in(request: Request, connections: Connected) -> Response:
    """Begin a session with the token of a form, and show the page that was asked for."""
    body = b"".join([piece async for piece in pieces(request, MOST_JSON_BYTES)])
    try:
        fields = parse_qs(body.decode("latin-1"), max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Refused("bad_request", f"A form of at most {MOST_FIELDS} fields.") from None
    wanted = fields.get("wanted", [""])[0]
    wanted = wanted if OWN_PATH.fullmatch(wanted) else _gallery(request)
    request.state.wanted = wanted
    # Another site must not sign its visitors in here.
    if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        raise Refused("token_missing", "Another site sent this form; sign in here.")
    token = connections.tokens.find(fields.get("token", [""])[0].strip())
    if token is None:
        raise Refused(
            "token_unknown",
            "Use the one in the file `api-token` of imgflow's home, or in IMGFLOW_API_TOKEN.",
        )
    return await _signed_in(request, connections, token, wanted)


async def _token_of_key(connections: Connections, key: str) -> Token | None:
    """Use up a sign-in key, everywhere, and return its token; None if it is invalid or used."""
    given = connections.signatures.read("key", key)
    token = connections.tokens.named(given.token_name) if given else None
    if given is None or token is None or not await connections.revoke(given.id):
        return None
    return token


async def _signed_in(
    request: Request, connections: Connections, token: Token, wanted: str
) -> Response:
    response = RedirectResponse(wanted, 303)
    await replace_session(request, response, connections, token)
    return response


def _gallery(request: Request) -> str:
    return f"{request.scope.get('root_path', '')}/"
