"""Who may operate a server from its HTTP address, and who only looks as if."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.test_utils import make_mocked_request

from polyroute.core.config import ConsoleConfig, Operate
from polyroute.core.errors import PermissionDenied
from polyroute.server.rest import operators
from polyroute.server.rest.operators import admit


def asked(peer: str = "127.0.0.1", *, old: bool = False, host: str = "127.0.0.1:8080", **headers: str) -> web.Request:
    transport = Mock()
    transport.get_extra_info = lambda name, default=None: (peer, 55555) if name == "peername" else default
    given = {"Host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    version = HttpVersion10 if old else HttpVersion11
    return make_mocked_request("POST", "/x", headers=given, version=version, transport=transport)


def objection(http: web.Request, rule: Operate, hosts: tuple[str, ...] | None = None) -> str:
    return operators.objection(http, ConsoleConfig(operate=rule, hosts=hosts))


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "127.9.9.9"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.0.0.53"])
def test_this_machine_may(peer: str, host: str) -> None:
    assert objection(asked(peer, host=host), "local") == ""
    assert objection(asked(peer, host=host, Origin=f"http://{host.lower()}"), "local") == ""


@pytest.mark.parametrize("peer", ["10.0.0.7", "192.168.1.2", "2001:db8::1", "::ffff:10.0.0.7", ""])
def test_others_may_not(peer: str) -> None:
    assert "only this machine" in objection(asked(peer), "local")
    assert objection(asked(peer), "all") == ""


@pytest.mark.parametrize(
    "host", ["evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "0.0.0.0:8080"]
)
def test_another_name_for_this_machine_may_not(host: str) -> None:
    """DNS rebinding: a page of evil.example whose name now leads here has the same host as its origin."""
    assert "loopback name" in objection(asked(host=host, Origin=f"http://{host}"), "local")


@pytest.mark.parametrize("rule", ["local", "all"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "file://127.0.0.1:8080"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_a_page_of_another_site_may_not(rule: Operate, headers: dict[str, str]) -> None:
    assert "another site" in objection(asked(**headers), rule)


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_its_own_page_and_an_address_typed_in_may(site: str) -> None:
    assert objection(asked(Sec_Fetch_Site=site), "local") == ""


@pytest.mark.parametrize(
    "header", ["Forwarded", "Via", "X_Real_IP", "X_Forwarded_For", "X_Forwarded_Host", "x_forwarded_whatever"]
)
def test_nobody_behind_a_proxy_is_local(header: str) -> None:
    assert "proxy" in objection(asked(**{header: "127.0.0.1"}), "local")
    assert objection(asked(**{header: "127.0.0.1"}), "all") == ""


def test_a_proxy_that_says_nothing_shows_by_its_http() -> None:
    assert "proxy" in objection(asked(old=True), "local")


def test_off_is_off_for_everybody() -> None:
    assert "switched off" in objection(asked(), "off")


def test_a_refusal_says_what_to_change() -> None:
    admit(asked(), ConsoleConfig())
    with pytest.raises(PermissionDenied, match=r"console\.operate"):
        admit(asked("10.0.0.7"), ConsoleConfig())


@pytest.mark.parametrize("host", ["router.example", "Router.Example:8080", "localhost:8080", "[2001:db8::1]:8080"])
def test_all_may_by_the_names_of_the_server(host: str) -> None:
    names = ("ROUTER.example", "[2001:DB8:0::1]")
    assert objection(asked("10.0.0.7", host=host, Origin=f"http://{host}"), "all", names) == ""


@pytest.mark.parametrize("hosts", [(), ("router.example",)])
def test_a_name_that_was_made_to_lead_here_may_not_where_all_may(hosts: tuple[str, ...]) -> None:
    host = "evil.example:8080"
    assert "console.hosts" in objection(asked("10.0.0.7", host=host, Origin=f"http://{host}"), "all", hosts)
