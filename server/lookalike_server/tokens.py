"""Bearer tokens: a file of digests, and the gate that asks for one.

    # name   digest                scope   limits
    shop     sha256:9f86d081...    write   images_per_second=200 images_in_flight=512
    viewer   sha256:60303ae2...    read

A token is 256 random bits, so one SHA-256 of it is as hard to turn round as any slower digest; whoever reads
the file learns no token. Scope "read" allows the calls that the protos mark as having no side effects,
"write" allows all.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions

from lookalike_server.errors import ConfigInvalid, ScopeMissing, TokenInvalid, TokenMissing
from lookalike_server.quotas import Quota
from lookalike_server.watched import Watched

SCOPES = ("read", "write")

_PREFIX = "lookalike_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LIMITS = {"images_per_second": float, "images_in_flight": int}
_FORM = "expected NAME sha256:DIGEST read|write [images_per_second=N] [images_in_flight=N]"

Limits = dict[str, float]


@dataclass(frozen=True)
class Token:
    name: str
    digest: bytes
    scope: str
    limits: tuple[tuple[str, float], ...] = ()

    def quota(self) -> Quota | None:
        given = dict(self.limits)
        per_second, in_flight = given.get("images_per_second"), given.get("images_in_flight")
        return Quota(per_second, None if in_flight is None else int(in_flight)) if given else None


def new_token(name: str, scope: str, limits: Limits) -> tuple[str, str]:
    """Returns a new token, and the line of the file that lets it in. Raises ConfigInvalid."""
    token = _PREFIX + secrets.token_urlsafe(32)
    asked = [f"{key}={value:.15g}" for key, value in limits.items()]
    line = " ".join([name, f"sha256:{_digest(token).hex()}", scope, *asked])
    _parse(line)
    return token, line


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Returns the tokens of a file. Raises ConfigInvalid, with a line for each problem."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigInvalid(f"token_file: {path} cannot be read: {why}.") from None
    tokens, problems = [], []
    for number, line in enumerate(lines, 1):
        try:
            tokens += [_parse(line)] if line.partition("#")[0].strip() else []
        except ConfigInvalid as error:
            problems.append(f"token_file: {path}, line {number}: {error.message}")
    names = [token.name for token in tokens]
    problems += [f"token_file: {path}: {name} stands there twice." for name in _repeated(names)]
    if problems:
        raise ConfigInvalid("\n".join(problems))
    return tuple(tokens)


def _parse(line: str) -> Token:
    """Never quotes the line: somebody may have put the token itself there."""
    name, digest, scope, *limits = [*line.partition("#")[0].split(), "", "", ""][:6]
    found = _DIGEST.fullmatch(digest)
    if not _NAME.fullmatch(name) or found is None or scope not in SCOPES:
        raise ConfigInvalid(f"{_FORM}.")
    return Token(name, bytes.fromhex(found[1]), scope, tuple(_limit(part) for part in limits if part))


def _limit(part: str) -> tuple[str, float]:
    key, _, text = part.partition("=")
    try:
        value = _LIMITS[key](text)
    except (KeyError, ValueError):
        raise ConfigInvalid(f"{_FORM}.") from None
    if not 0 < value < float("inf"):
        raise ConfigInvalid(f"{key} must be more than 0.")
    return key, value


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Gate:
    """Lets calls in that show a token of the file. It belongs to one event loop.

    Args:
        path: the file; it is read again when it has changed. Raises ConfigInvalid when it is wrong.
    """

    def __init__(self, path: Path) -> None:
        self.tokens: Watched[tuple[Token, ...]] = Watched([path], lambda: read_tokens(path))
        self._quotas: dict[Token, Quota | None] = {}

    def admit(self, method: str, metadata: Iterable[tuple[str, Any]]) -> tuple[str, Quota | None]:
        """Returns the token's name and its quota.

        Raises TokenMissing, TokenInvalid, or ScopeMissing when the token may not make this call.
        """
        token = self._known(metadata)
        if token.scope == "read" and not changes_nothing(method):
            raise ScopeMissing(
                f"{method.rpartition('/')[2]} needs a token with the scope 'write'; this one has 'read'.",
                scope="write",
            )
        if token not in self._quotas:
            self._quotas[token] = token.quota()
        return token.name, self._quotas[token]

    def _known(self, metadata: Iterable[tuple[str, Any]]) -> Token:
        given = next((value for key, value in metadata if key == "authorization"), None)
        if given is None:
            raise TokenMissing("This server asks for a token: send 'authorization: Bearer TOKEN'.")
        scheme, _, shown = str(given).partition(" ")
        digest = _digest(shown.strip())
        # All of them, whatever the first ones said: the time tells nothing of the tokens.
        found = [token for token in self.tokens.get() if hmac.compare_digest(token.digest, digest)]
        if scheme.lower() != "bearer" or not found:
            raise TokenInvalid("The token is not one of this server's.")
        return found[0]


@cache
def changes_nothing(method: str) -> bool:
    """Whether the proto marks a method ("/package.Service/Method") as having no side effects."""
    service, _, name = method.strip("/").partition("/")
    try:
        found = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    except KeyError:
        return False
    return bool(found.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS)
