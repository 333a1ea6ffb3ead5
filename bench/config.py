"""How long resolving an environment's config takes, beside a bare read of the same document."""

from __future__ import annotations

import http.client
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import report
from branchline.adapters.identity import Signer
from branchline.adapters.vault import VaultConfigReader, VaultConfigWriter
from branchline.domain.config import Secret
from branchline.domain.environment import Environment, Tier
from branchline.layout import Layout
from branchline.stack import first_start
from branchline.stack.openbao import OpenBao
from branchline.stack.part import running

KEYS = 20
READS = 400
LOGINS = 60
WRITES = 60
ENVIRONMENT = Environment(id=1, project="shop", name="develop", tier=Tier.NONPROD, slot=1)


def timed(call: Callable[[], object]) -> float:
    """Milliseconds that one call takes."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


class BareReader:
    """The least that any client must do: one request over an open connection, and the answer parsed."""

    def __init__(self, layout: Layout) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", layout.ports.openbao, timeout=10)
        login = {"role": "runtime", "jwt": Signer(layout.key("nonprod.pem")).runtime(ENVIRONMENT)}
        self._headers: dict[str, str] = {}
        answer = self._ask("POST", "/v1/auth/jwt-nonprod/login", json.dumps(login))
        self._headers = {"X-Vault-Token": answer["auth"]["client_token"]}

    def read(self) -> None:
        """Read the document."""
        found = self._ask("GET", f"/v1/nonprod/data/{ENVIRONMENT.project}/env/{ENVIRONMENT.name}")
        assert len(found["data"]["data"]) == KEYS

    def _ask(self, method: str, path: str, body: str | None = None) -> dict:
        self._connection.request(method, path, body, self._headers)
        return json.loads(self._connection.getresponse().read())


def main() -> None:
    """Start an OpenBao of our own, measure, write the results."""
    home = Path(tempfile.mkdtemp(prefix="bl-bench-"))
    try:
        layout = first_start.establish(home)
        openbao = OpenBao(layout, first_start.account())
        with running(openbao, layout.log):
            measure(openbao, layout)
    finally:
        shutil.rmtree(home)


def measure(openbao: OpenBao, layout: Layout) -> None:
    """Take bare and resolved reads in turn, so that whatever else the machine does hits both alike."""

    def reader() -> VaultConfigReader:
        return VaultConfigReader(openbao.endpoint, Tier.NONPROD, layout.key("nonprod.pem"))

    writer = VaultConfigWriter(openbao.endpoint, layout.key("server.pem"))
    writer.write("shop", "develop", {f"KEY_{number}": Secret("value " * 6) for number in range(KEYS)})
    bare, warm = BareReader(layout), reader()
    for _ in range(20):
        bare.read()
        warm.read(ENVIRONMENT)
    bare_times, warm_times = [], []
    for _ in range(READS):
        bare_times.append(timed(bare.read))
        warm_times.append(timed(lambda: warm.read(ENVIRONMENT)))
    login_times = [timed(lambda: reader().read(ENVIRONMENT)) for _ in range(LOGINS)]
    write_times = [
        timed(lambda number=number: writer.write("shop", "develop", {"KEY_0": Secret(str(number))}))
        for number in range(WRITES)
    ]
    figures = {
        f"{name}_p{percent}_ms": report.percentile(times, percent)
        for name, times in (
            ("bare_read", bare_times),
            ("resolve", warm_times),
            ("login_and_resolve", login_times),
            ("write", write_times),
        )
        for percent in (50, 95)
    }
    ratios = {
        f"{name}_to_bare_read_p{percent}": figures[f"{name}_p{percent}_ms"] / figures[f"bare_read_p{percent}_ms"]
        for name in ("resolve", "login_and_resolve")
        for percent in (50, 95)
    }
    report.write("config", figures, ratios)


if __name__ == "__main__":
    main()
