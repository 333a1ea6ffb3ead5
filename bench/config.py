"""How long resolving an environment's config takes: three layers for a branch, beside three bare reads of them."""

from __future__ import annotations

import http.client
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import report
from branchline.adapters.identity import Identity, Signer
from branchline.adapters.vault import VaultConfigReader, VaultConfigWriter
from branchline.domain.config import Secret
from branchline.domain.environment import Environment, Inherits, Tier
from branchline.domain.layers import COMMON, DEVELOP, Layer, layers_of
from branchline.layout import Layout
from branchline.stack import first_start
from branchline.stack.openbao import OpenBao
from branchline.stack.part import running

KEYS = 20
READS = 400
LOGINS = 60
WRITES = 60
PROJECTS = 500
ENVIRONMENTS = 10
BRANCH = Environment(id=1, project="shop", name="login", tier=Tier.NONPROD, slot=1, inherits=Inherits.DEVELOP)
LAYERS = layers_of(BRANCH.project, BRANCH.name, BRANCH.inherits)


def timed(call: Callable[[], object]) -> float:
    """Milliseconds that one call takes."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


class BareReader:
    """The least that any client must do: one request for each layer over an open connection, and the answer parsed."""

    def __init__(self, layout: Layout) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", layout.ports.openbao, timeout=10)
        token = Signer(partial(layout.key, "nonprod.pem")).runtime(Identity.of(BRANCH, LAYERS))
        self._headers: dict[str, str] = {}
        answer = self._ask("POST", "/v1/auth/jwt-nonprod/login", json.dumps({"role": "runtime", "jwt": token}))
        self._headers = {"X-Vault-Token": answer["auth"]["client_token"]}

    def read(self) -> None:
        """Read the three documents."""
        for layer in LAYERS:
            found = self._ask("GET", f"/v1/nonprod/data/{layer.path}")
            assert found["data"]["data"]

    def _ask(self, method: str, path: str, body: str | None = None) -> dict:
        self._connection.request(method, path, body, self._headers)
        return json.loads(self._connection.getresponse().read())


def main() -> None:
    """Start an OpenBao of our own, measure with one project and with many, write the results."""
    home = Path(tempfile.mkdtemp(prefix="bl-bench-"))
    try:
        layout = first_start.establish(home)
        openbao = OpenBao(layout, first_start.account())
        with running(openbao, layout.log):
            measure(openbao, layout)
    finally:
        shutil.rmtree(home)


def fill(writer: VaultConfigWriter, project: str, name: str) -> None:
    """A layer as projects have them: develop sets all keys, the project's own and the branch's a few of these."""
    many = KEYS if name == DEVELOP else KEYS // 4
    writer.write(Layer(project, name), {f"KEY_{number}": Secret("value " * 6) for number in range(many)}, 0)


def crowd(openbao: OpenBao, layout: Layout) -> None:
    """Many projects, each with its own layer and many environments."""
    writer = VaultConfigWriter(openbao.endpoint, partial(layout.key, "server.pem"))
    names = [COMMON, DEVELOP, *(f"branch-{number}" for number in range(ENVIRONMENTS - 1))]
    wanted = [(f"p{number}", name) for number in range(PROJECTS) for name in names]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda one: fill(writer, *one), wanted))


def resolving(bare: BareReader, warm: VaultConfigReader) -> tuple[list[float], list[float]]:
    """Bare and resolved reads in turn, so that whatever else the machine does hits both alike."""
    for _ in range(20):
        bare.read()
        assert len(warm.read(BRANCH)) == KEYS
    pairs = [(timed(bare.read), timed(lambda: warm.read(BRANCH))) for _ in range(READS)]
    return [one for one, _ in pairs], [one for _, one in pairs]


def measure(openbao: OpenBao, layout: Layout) -> None:
    """All figures."""

    def reader() -> VaultConfigReader:
        return VaultConfigReader(openbao.endpoint, Tier.NONPROD, partial(layout.key, "nonprod.pem"))

    writer = VaultConfigWriter(openbao.endpoint, partial(layout.key, "server.pem"))
    for layer in LAYERS:
        fill(writer, layer.project, layer.name)
    bare, warm = BareReader(layout), reader()
    bare_times, warm_times = resolving(bare, warm)
    login_times = [timed(lambda: reader().read(BRANCH)) for _ in range(LOGINS)]
    own = LAYERS[-1]
    write_times = [
        timed(lambda number=number: writer.write(own, {"KEY_0": Secret(str(number))}, number + 1))
        for number in range(WRITES)
    ]
    crowd(openbao, layout)
    bare_crowded, warm_crowded = resolving(bare, warm)
    figures = {
        f"{name}_p{percent}_ms": report.percentile(times, percent)
        for name, times in (
            ("three_bare_reads", bare_times),
            ("resolve", warm_times),
            ("login_and_resolve", login_times),
            ("write", write_times),
            (f"three_bare_reads_of_{PROJECTS * ENVIRONMENTS}", bare_crowded),
            (f"resolve_of_{PROJECTS * ENVIRONMENTS}", warm_crowded),
        )
        for percent in (50, 95)
    }
    crowded = f"of_{PROJECTS * ENVIRONMENTS}"
    ratios = {
        "ratio_resolve": figures["resolve_p50_ms"] / figures["three_bare_reads_p50_ms"],
        "ratio_resolve_p95": figures["resolve_p95_ms"] / figures["three_bare_reads_p95_ms"],
        "ratio_5000_to_1": figures[f"resolve_{crowded}_p50_ms"] / figures["resolve_p50_ms"],
        "ratio_5000_to_1_bare": figures[f"three_bare_reads_{crowded}_p50_ms"] / figures["three_bare_reads_p50_ms"],
        "login_and_resolve_to_bare": figures["login_and_resolve_p50_ms"] / figures["three_bare_reads_p50_ms"],
    }
    report.write("config", figures, ratios)


if __name__ == "__main__":
    main()
