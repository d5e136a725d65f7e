"""Who may do what: routes that change something need a token, all others are open.

Nothing here listens beyond this machine, so reading needs no token yet.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from imgflow.api.connections import Connected
from imgflow.api.problems import Refused
from imgflow.tokens import Scope

CHALLENGE = 'Bearer realm="imgflow"'

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="`IMGFLOW_API_TOKEN`, or the content of the file `api-token` in the home.",
)
Given = Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]


def needs(scope: Scope) -> Any:
    """Let a route answer only those whose token has a scope.

    Checked before anything else of the request is, so that strangers learn nothing from it.
    """

    def check(connections: Connected, given: Given) -> None:
        if given is None or not given.credentials:
            raise Refused(
                "token_missing",
                "Send the header `Authorization: Bearer TOKEN`.",
                headers={"WWW-Authenticate": CHALLENGE},
            )
        scopes = connections.tokens.scopes(given.credentials)
        if scopes is None:
            raise Refused(
                "token_unknown",
                "It is neither in IMGFLOW_API_TOKEN nor, where that is empty, in the home.",
                headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'},
            )
        if scope not in scopes:
            raise Refused(
                "scope_missing",
                f"The token lacks the scope {scope}.",
                headers={
                    "WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"'
                },
            )

    return Depends(check)


PROBLEMS_OF_TOKENS = ("token_missing", "token_unknown", "scope_missing")
