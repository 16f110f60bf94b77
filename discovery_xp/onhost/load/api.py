"""The cloud's APIs: requests, tokens, and what is wrong when one is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from .. import catalogue

# Of the load's other requests: their time isn't what is measured.
ANSWER_S = 120.0
CONNECT_S = 30.0
ERROR_LENGTH = 300


class Refusal(Exception):
    """A request that was answered by an error, whose `status` it has, or couldn't be sent."""

    def __init__(self, message: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(message[:ERROR_LENGTH])

    @property
    def is_unreached(self) -> bool:
        """Tell whether the API may not have got the request."""
        return self.status is None


class NoAnswer(Refusal):
    """A request that wasn't answered in time."""

    @property
    def is_unreached(self) -> bool:
        """Return False: an API that takes its time is there."""
        return False


class Login:
    """A user of the cloud; one token for all requests, another when it is refused.

    `credential` is a mapping as Rally has it, `session` one of keystoneauth.
    """

    def __init__(self, credential: Any, session: Any) -> None:
        self.credential = credential
        self.session = session
        self.token: str = self.session.get_token()
        self.lock = asyncio.Lock()

    def endpoint(self, service: str, region: str) -> str:
        """Return where a service of a region is asked."""
        url = self.session.get_endpoint(
            service_type=service, interface="public", region_name=region
        )
        if not url:
            raise Refusal(f"the catalogue has no {service} in {region}")
        return str(url).rstrip("/")

    async def renew(self, stale: str) -> None:
        """Get another token than `stale`, by whoever comes first."""
        async with self.lock:
            if self.token == stale:
                await asyncio.to_thread(self.session.invalidate)
                self.token = await asyncio.to_thread(self.session.get_token)


class Api:
    """Requests to the cloud, as its user or as admin, over connections that are kept.

    `polls` counts the pages of lists of VMs that were asked for, `last_sent_at` is the moment of
    the last POST that was sent, in s since 1970.  Whatever is waited for takes `time_scale` times
    as long.
    """

    def __init__(self, user: Login, admin: Login, time_scale: float = 1.0) -> None:
        self.user = user
        self.admin = admin
        self.time_scale = time_scale
        self.polls = 0
        self.last_sent_at = 0.0
        self.http: Any = None

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Keep connections meanwhile."""
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(self._note_sent)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        async with aiohttp.ClientSession(
            connector=connector, trace_configs=[tracing], auto_decompress=True
        ) as self.http:
            yield

    async def _note_sent(self, _session: Any, _context: Any, params: Any) -> None:
        if params.method == "POST":
            self.last_sent_at = time.time()

    async def ask(
        self,
        method: str,
        url: str,
        body: Any = None,
        admin: bool = False,
        limit_s: float | None = None,
        connect_s: float = CONNECT_S,
        version: str = catalogue.COMPUTE_MICROVERSION,
    ) -> Any:
        """Return the answer's JSON; raises Refusal.

        `limit_s` are seconds of the clock, `connect_s` are before the scale.
        """
        login = self.admin if admin else self.user
        limits = self._limits(limit_s, connect_s)
        is_renewed = False
        while True:
            token = login.token
            headers = {"X-Auth-Token": token, "X-OpenStack-Nova-API-Version": version}
            status, data = await self.send(method, url, body, headers, limits)
            if status != 401 or is_renewed:
                break
            await login.renew(token)
            is_renewed = True
        return _json_of(status, data)

    async def send(
        self, method: str, url: str, body: Any, headers: dict[str, str], limits: Any
    ) -> tuple[int, bytes]:
        """Return the status and the bytes of an answer; raises Refusal where there is none."""
        try:
            async with self.http.request(
                method, url, json=body, headers=headers, timeout=limits
            ) as answer:
                return answer.status, await answer.read()
        except aiohttp.ServerTimeoutError:
            raise Refusal(f"no connection within {limits.sock_connect:g} s") from None
        except TimeoutError:
            raise NoAnswer(f"no answer within {limits.total:.0f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Refusal(f"{type(error).__name__}: {error}") from None

    def _limits(self, limit_s: float | None, connect_s: float) -> Any:
        total_s = ANSWER_S * self.time_scale if limit_s is None else limit_s
        return aiohttp.ClientTimeout(total=total_s, sock_connect=connect_s * self.time_scale)

    async def servers(self, compute_url: str, query: str, **limits: Any) -> list[Any]:
        """Return all servers of a list, however many pages it has; each page is a poll.

        It is asked as admin: VMs of the warm-up are admin's.
        """
        url: str | None = f"{compute_url}/servers{query}"
        servers: list[Any] = []
        while url:
            self.polls += 1
            answer = await self.ask("GET", url, admin=True, **limits)
            servers += answer["servers"]
            links = [link for link in answer.get("servers_links", []) if link["rel"] == "next"]
            url = links[0]["href"] if links else None
        return servers

    async def authenticate(self) -> None:
        """Get a token by the user's password, for its project, with the whole catalogue."""
        credential = self.user.credential
        user = {
            "name": credential["username"],
            "domain": {"name": credential["user_domain_name"]},
            "password": credential["password"],
        }
        project = {
            "name": credential["tenant_name"],
            "domain": {"name": credential["project_domain_name"]},
        }
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": project},
            }
        }
        base = credential["auth_url"].rstrip("/").removesuffix("/v3")
        limits = self._limits(None, CONNECT_S)
        _require_success(*await self.send("POST", f"{base}/v3/auth/tokens", body, {}, limits))


def _require_success(status: int, data: bytes) -> None:
    if status >= 400:
        raise Refusal(f"HTTP {status}: {message_of(data)}", status)


def _json_of(status: int, data: bytes) -> Any:
    _require_success(status, data)
    try:
        return json.loads(data) if data else None
    except ValueError:
        raise Refusal(f"HTTP {status}, but not JSON: {message_of(data)}", status) from None


def message_of(data: bytes) -> str:
    """Return what an API's error says in words."""
    text = data.decode(errors="replace")
    with contextlib.suppress(ValueError, AttributeError):
        for value in json.loads(text).values():
            if isinstance(value, dict) and "message" in value:
                return str(value["message"])
    return " ".join(re.sub(r"<[^>]*>", " ", text).split()) or "no message"
