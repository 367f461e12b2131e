"""nginx and Caddy, configured as docs/reverse-proxy.md says, in front of a server that is shown below a path."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.server import ROOT, Server, serving, until

pytestmark = pytest.mark.any_database

PAGE = (ROOT / "docs/reverse-proxy.md").read_text()
HOST = "vectors.example.com"
BASE = "/vectors"
ODD_IDS = ["https://a/b//c?d=e#f", "a%2Fb", "x/y", "日本 1", "50%", "+", "a;b=c"]


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = dict(
        re.findall(r"^(VECTORDB_\w+)=(.*)$", PAGE.partition("```sh\n")[2].partition("```")[0], re.MULTILINE)
    )
    settings |= {"VECTORDB_BASE_PATH": BASE, "VECTORDB_ADDRESS_READS_PER_MINUTE": 500}
    with serving(tmp_path_factory.mktemp("behind") / "data", **settings) as server:
        yield server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int, **environ: str) -> Iterator[httpx.Client]:
    """A client of a proxy with TLS that listens on `port`, which asks for the name in its configuration."""
    process = subprocess.Popen(command, env=os.environ | environ, stderr=subprocess.DEVNULL)

    def ask(path: str = "/ready") -> Any:
        return client.get(BASE + path)

    def is_up() -> bool:
        try:
            return bool(ask().status_code == 200)
        except httpx.TransportError:
            return False

    try:
        # The name is asked for, and the certificate is that name's, but the address is this machine's.
        extensions = {"sni_hostname": HOST}
        transport = _Named(verify=False, extensions=extensions)
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", headers={"Host": HOST}, transport=transport) as client:
            until(is_up, "the proxy answers")
            yield client
    finally:
        process.terminate()
        process.wait()


class _Named(httpx.HTTPTransport):
    """Names the host in TLS, too."""

    def __init__(self, *, verify: bool, extensions: dict[str, Any]) -> None:
        super().__init__(verify=verify)
        self._extensions = extensions

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions |= self._extensions
        return super().handle_request(request)


@contextmanager
def nginx(server: Server, folder: Path) -> Iterator[httpx.Client]:
    port = free_port()
    site = PAGE.partition("```nginx\n")[2].partition("```")[0]
    site = site.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace("location /", f"location {BASE}/")
    site = site.replace("listen 80;", f"listen 127.0.0.1:{free_port()};")
    site = site.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;").replace("/etc/ssl/", f"{folder}/ssl/")
    (folder / "ssl/private").mkdir(parents=True)
    certify = PAGE.partition("A certificate to try it with:\n\n```sh\n")[2].partition("```")[0]
    subprocess.run(["sh", "-c", certify.replace("/etc/ssl/", f"{folder}/ssl/")], check=True, capture_output=True)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{site}}}\n"
    )
    with running(["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")], port) as client:
        yield client


@contextmanager
def caddy(server: Server, folder: Path) -> Iterator[httpx.Client]:
    port = free_port()
    site = PAGE.partition("```\nvectors.example.com {")[2].partition("```")[0]
    site = site.replace("reverse_proxy 127.0.0.1:8000", f"reverse_proxy {BASE}/* 127.0.0.1:{server.port}")
    options = f"{{\nadmin off\nskip_install_trust\nhttp_port {free_port()}\nhttps_port {port}\n}}\n"
    (folder / "Caddyfile").write_text(f"{options}{HOST} {{{site}")
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    command = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    with running(command, port, **home) as client:
        yield client


@pytest.mark.parametrize("proxy", [nginx, caddy], ids=lambda proxy: proxy.__name__)
def test_everything_works_behind_a_proxy(behind: Server, tmp_path: Path, proxy: Any) -> None:
    if shutil.which(proxy.__name__) is None:
        pytest.skip(f"{proxy.__name__} is not installed")
    library = proxy.__name__
    with proxy(behind, tmp_path) as client:
        client.headers.update(behind.authorization)
        made = client.post(f"{BASE}/api/v1/libraries", json={"id": library, "name": "Made", "dimension": 2})
        path = made.headers["Location"]
        assert (made.status_code, path) == (201, f"{BASE}/api/v1/libraries/{library}")
        chunks = [{"id": odd, "embedding": [1, number]} for number, odd in enumerate(ODD_IDS)]
        assert client.post(f"{path}/chunks", json={"chunks": chunks}).json()["created"] == len(ODD_IDS)
        for odd in ODD_IDS:
            at = quote(odd, safe="")
            assert client.get(f"{path}/chunks/{at}").json()["id"] == odd
            assert client.patch(f"{path}/chunks/{at}", json={"metadata": {"id": odd}}).json()["metadata"] == {"id": odd}
            document = {"title": odd, "chunks": [{"id": f"of {odd}", "embedding": [0, 1]}]}
            assert client.put(f"{path}/documents/{at}", json=document).json()["id"] == odd
            assert client.get(f"{path}/documents/{at}").json()["title"] == odd
            [chunk] = client.get(f"{path}/chunks?document_id={at}").json()["items"]
            assert chunk["id"] == f"of {odd}"
            assert client.delete(f"{path}/documents/{at}").status_code == 204
            assert client.get(f"{path}/documents/{at}").status_code == 404
        assert len(client.post(f"{path}/query", json={"vector": [1, 0]}).json()["results"]) == len(ODD_IDS)
        assert client.delete(f"{path}/chunks/{quote(ODD_IDS[0], safe='')}").status_code == 204
        page = client.get(f"{path}/chunks?limit=2", headers={"Accept": "text/html"}).text
        assert f'href="{BASE}/static/vectordb/api.css"' in page
        assert client.get(f"{BASE}/static/vectordb/api.css").status_code == 200
        assert client.get(f"{BASE}/api/docs").status_code == 200

        # A login: Django compares the page's origin with scheme and host of the request.
        form = client.get(f"{BASE}/admin/login/?next={BASE}/admin/")
        assert "Secure" in form.headers["Set-Cookie"]
        fields = {
            "csrfmiddlewaretoken": form.text.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0],
            "username": "nobody",
            "password": "wrong",
        }
        client.cookies.clear()
        headers = {"Cookie": form.headers["Set-Cookie"].partition(";")[0], "Origin": f"https://{HOST}"}
        headers["Referer"] = f"https://{HOST}{BASE}/admin/login/"
        answer = client.post(f"{BASE}/admin/login/", data=fields, headers=headers)
        assert "Please enter the correct" in answer.text

        # Who asks is the client, and not whom it claims to be.
        claimed = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"}
        left = [client.get(path, headers=claimed).headers["RateLimit"] for _ in range(2)]
        left.append(httpx.get(behind.url + path, headers={"Host": "localhost"}).headers["RateLimit"])
        counts = [int(re.findall(r"r=(\d+)", text)[0]) for text in left]
        assert counts == [counts[0], counts[0] - 1, counts[0] - 2]

        large = client.post(f"{path}/query", content=b"x" * (64 * 1024 * 1024 + 1), headers={"Content-Type": "a/b"})
        assert large.json()["detail"].endswith("(limit VECTORDB_MAX_BODY_BYTES).")
