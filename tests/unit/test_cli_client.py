"""Whatever a server, a proxy or the network answers becomes an error with a sentence, a hint and an exit status."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline import wire, wire_people
from branchline.cli import client as client_module
from branchline.cli.client import Client, path
from branchline.cli.credentials import Access
from branchline.domain.config import Secret
from branchline.domain.errors import BadInput, BranchlineError
from tests.fakes.api import TOKEN, Canned, FakeApi


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as server:
        yield server


def speaking(api: FakeApi, token: str = TOKEN) -> Client:
    return Client(Access(api.url, Secret(token)))


def caught(client: Client) -> BranchlineError:
    with pytest.raises(BranchlineError) as found, client:
        client.get("whoami", wire_people.WhoAmI)
    return found.value


@pytest.mark.parametrize(
    ("status", "exit_status", "kind"),
    [
        (400, 2, "BadInput"),
        (401, 3, "Unauthenticated"),
        (403, 3, "Refused"),
        (404, 2, "NotFound"),
        (409, 2, "Conflict"),
        (413, 2, "BadInput"),
        (422, 2, "BadInput"),
        (500, 4, "PlatformBroke"),
        (503, 4, "PlatformBroke"),
    ],
)
def test_problems_keep_their_meaning(api: FakeApi, status: int, exit_status: int, kind: str) -> None:
    body = wire.Problem(code="of_its_own", title="So it is.", detail="More.", hint="Do this.", status=status)
    api.canned["whoami"] = Canned(status, body.model_dump_json().encode(), "application/problem+json")
    error = caught(speaking(api))
    assert (type(error).__name__, error.exit_status, error.status) == (kind, exit_status, status)
    assert (error.code, error.sentence, error.hint, error.__notes__) == (
        "of_its_own",
        "So it is.",
        "Do this.",
        ["More."],
    )


@pytest.mark.parametrize(
    ("canned", "code", "word"),
    [
        (Canned(200, b"<html>Welcome to the router</html>", "text/html"), "not_branchline", "HTTP 200, text/html"),
        (Canned(200, b'{"name": "x"}'), "not_branchline", "HTTP 200, application/json"),
        (Canned(200, b"[]"), "not_branchline", "HTTP 200"),
        (Canned(200, b"\xff\xfe"), "not_branchline", "HTTP 200"),
        (Canned(200, b""), "not_branchline", "HTTP 200"),
        (Canned(404, b"nothing", "text/plain"), "not_branchline", "HTTP 404, text/plain"),
        (Canned(401, b'"who?"'), "not_branchline", "HTTP 401"),
        (Canned(500, b'{"oops": 1}'), "not_branchline", "HTTP 500"),
        (Canned(502, b"<html>bad gateway</html>", "text/html"), "unreachable", "behind"),
        (Canned(503, b""), "unreachable", "behind"),
        (Canned(302, b"", "text/html", {"Location": "https://elsewhere.example/login"}), "not_branchline", "HTTP 302"),
    ],
)
def test_answers_that_are_none_of_branchline(api: FakeApi, canned: Canned, code: str, word: str) -> None:
    api.canned["whoami"] = canned
    error = caught(speaking(api))
    assert (error.code, error.exit_status) == (code, 4)
    assert word in error.sentence
    assert error.hint
    if canned.status == 302:
        assert "https://elsewhere.example/login" in error.hint
        assert len(api.requests) == 1, "the token would go along"


def test_a_list_of_something_else_is_not_ours(api: FakeApi) -> None:
    api.canned["projects"] = Canned(200, b'[{"weather": "fine"}]')
    with speaking(api) as client, pytest.raises(BranchlineError) as found:
        client.get_list("projects", wire.ProjectView)
    assert found.value.code == "not_branchline"


def test_a_newer_platform_may_say_more(api: FakeApi) -> None:
    api.canned["whoami"] = Canned(200, b'{"name":"a","role":"admin","proof":"t","version":"9","mood":"good"}')
    with speaking(api) as client:
        assert client.get("whoami", wire_people.WhoAmI).version == "9"


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = caught(Client(Access(f"http://127.0.0.1:{taken.getsockname()[1]}", Secret("t"))))
    assert (error.code, error.exit_status) == ("unreachable", 4)
    assert "`branchline status`" in error.hint


def test_a_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ANSWER_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        error = caught(Client(Access(f"http://127.0.0.1:{silent.getsockname()[1]}", Secret("t"))))
    assert (error.code, error.exit_status) == ("timed_out", 4)


def test_a_server_that_speaks_no_http() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"220 mail.example.com ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        error = caught(Client(Access(f"http://127.0.0.1:{listening.getsockname()[1]}", Secret("t"))))
        thread.join()
    assert (error.code, error.exit_status) == ("unreachable", 4)


def test_https_where_there_is_none(api: FakeApi) -> None:
    error = caught(Client(Access(api.url.replace("http:", "https:"), Secret("t"))))
    assert (error.code, error.exit_status) == ("no_https", 4)


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    subprocess.run([*command, *subject, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)

        def shake_hands() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=shake_hands)
        thread.start()
        error = caught(Client(Access(f"https://127.0.0.1:{listening.getsockname()[1]}", Secret("t"))))
        thread.join()
    assert (error.code, error.exit_status) == ("untrusted_certificate", 4)
    assert "self-signed" in error.sentence
    assert "SSL_CERT_FILE" in error.hint


def test_a_name_that_does_not_exist() -> None:
    assert caught(Client(Access("http://nowhere.invalid", Secret("t")))).code == "unreachable"


def test_a_token_that_no_header_can_carry() -> None:
    with pytest.raises(BadInput) as found:
        Client(Access("http://127.0.0.1:1", Secret("schlüssel–1")))
    assert "schl" not in str(found.value)


def test_the_token_goes_out_as_bearer_and_nowhere_else(api: FakeApi) -> None:
    with speaking(api) as client:
        assert client.get("whoami", wire_people.WhoAmI).name == "anna"
    assert TOKEN not in str(api.requests)
    assert caught(speaking(api, "another")).code == "unauthenticated"


def test_paths_stay_below_what_they_name() -> None:
    assert path("projects", "../x y/é?", 3) == "projects/..%2Fx%20y%2F%C3%A9%3F/3"
