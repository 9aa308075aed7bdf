"""TLS with certificates made for the test: trust, names, and both sides' identity."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import grpc
import pytest

from polyroute.client import Client, Tls, Unreachable
from tests.integration.client_peer import Peer, serving

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority `ca`, and a `server` and a `client` certificate that it has signed."""
    folder = tmp_path_factory.mktemp("pki")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    ca = ("-keyout", folder / "ca.key", "-out", folder / "ca.pem", "-days", 2, "-subj", "/CN=test authority")
    openssl("req", "-x509", *curve, *ca)
    for name in ("server", "client"):
        key, request, extensions = folder / f"{name}.key", folder / f"{name}.csr", folder / f"{name}.ext"
        openssl("req", "-new", *curve, "-keyout", key, "-out", request, "-subj", f"/CN={name}.test")
        extensions.write_text(f"subjectAltName=DNS:{name}.test")
        signed = ("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial", "-extfile", extensions)
        openssl("x509", "-req", "-in", request, *signed, "-days", 2, "-out", folder / f"{name}.pem")
    return folder


def server_side(pki: Path, *, ask_client: bool = False) -> grpc.ServerCredentials:
    pair = ((pki / "server.key").read_bytes(), (pki / "server.pem").read_bytes())
    return grpc.ssl_server_credentials([pair], (pki / "ca.pem").read_bytes() if ask_client else None, ask_client)


async def test_a_trusted_server_answers(pki: Path) -> None:
    async with serving(Peer(), credentials=server_side(pki)) as peer:
        tls = Tls(ca_file=pki / "ca.pem", server_name="server.test")
        async with Client(f"https://{peer.address}", tls=tls, token="t") as client:
            assert (await client.generate("x")).text == "Paris."
            assert (await client.stream("x").read()).text == "Paris."


@pytest.mark.parametrize(
    "tls", [{}, {"ca_file": "ca.pem"}, {"server_name": "server.test"}], ids=["nothing", "wrong-name", "not-trusted"]
)
async def test_a_server_that_is_not_trusted_is_not_spoken_to(pki: Path, tls: dict[str, str]) -> None:
    if "ca_file" in tls:
        tls = {**tls, "ca_file": str(pki / tls["ca_file"])}
    async with serving(Peer(), credentials=server_side(pki)) as peer:
        async with Client(peer.address, tls=Tls(**tls)) as client:
            with pytest.raises(Unreachable) as failed:
                await client.generate("x")
        assert peer.address in failed.value.message
        assert not peer.calls


async def test_both_sides_show_who_they_are(pki: Path) -> None:
    async with serving(Peer(), credentials=server_side(pki, ask_client=True)) as peer:
        trust = {"ca_file": pki / "ca.pem", "server_name": "server.test"}
        known = Tls(**trust, cert_file=pki / "client.pem", key_file=pki / "client.key")
        async with Client(peer.address, tls=known) as client:
            assert (await client.generate("x")).text == "Paris."
        async with Client(peer.address, tls=Tls(**trust)) as client:
            with pytest.raises(Unreachable):
                await client.generate("x")


async def test_plain_text_to_a_tls_server_fails_with_its_address(pki: Path) -> None:
    async with serving(Peer(), credentials=server_side(pki)) as peer, Client(peer.address, timeout=60) as client:
        with pytest.raises(Unreachable, match=peer.address):
            await client.generate("x")
