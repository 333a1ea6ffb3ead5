"""A Vault of somebody else's: a plain OpenBao, initialised and unsealed by hand as its operator does."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

from branchline.layout import Layout
from branchline.stack import binaries
from branchline.stack.openbao import JSON_STRINGS
from tests.openbao import Caller


class PlainVault:
    """A server in a folder of its own; `root` may do everything there, and it can be made as good as new."""

    def __init__(self, layout: Layout, folder: Path) -> None:
        self._ports = [_free_port() for _ in range(4)]
        self._folder = folder
        self._program = str(binaries.openbao(layout.home))
        self._process: subprocess.Popen[bytes] | None = None
        self.certificate = folder / "certificate.pem"
        self.url = f"http://127.0.0.1:{self._ports[0]}"
        self.tls_url = f"https://127.0.0.1:{self._ports[1]}"
        self.roomy_url = f"http://127.0.0.1:{self._ports[3]}"
        """The same server, where it takes documents of many keys."""

    @property
    def endpoint(self) -> str:
        return self.url

    def start(self) -> None:
        (self._folder / "data").mkdir()
        self._certify()
        (self._folder / "server.hcl").write_text(self._configuration())
        with (self._folder / "log").open("wb") as log:
            command = [self._program, "server", f"-config={self._folder / 'server.hcl'}"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        nobody = Caller(self.url)
        until = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.1)
        made = nobody.ask("POST", "sys/init", secret_shares=1, secret_threshold=1)
        assert made.status_code == 200, made.text
        self._unseal_key = made.json()["keys"][0]
        self._root = made.json()["root_token"]
        self.unseal()

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def unseal(self) -> None:
        answer = Caller(self.url).ask("POST", "sys/unseal", key=self._unseal_key)
        assert answer.json()["sealed"] is False, answer.text
        until = time.monotonic() + 60
        while Caller(self.url).ask("GET", "sys/health").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.1)

    def root(self) -> Caller:
        return Caller(self.url, self._root)

    def token(self, policy: str | None = None) -> str:
        """A token that its operator makes for once: good for everything, or for what the policy says."""
        if policy is not None:
            assert self.root().ask("POST", "sys/policies/acl/for-once", policy=policy).status_code == 204
        body = {"policies": ["root"] if policy is None else ["for-once"], "ttl": "10m"}
        made = self.root().ask("POST", "auth/token/create-orphan", **body)
        assert made.status_code == 200, made.text
        return str(made.json()["auth"]["client_token"])

    def renew(self) -> None:
        """Take out all that anybody added."""
        root = self.root()
        for kind, own in (("mounts", {"sys", "identity", "cubbyhole"}), ("auth", {"token"})):
            for name in root.ask("GET", f"sys/{kind}").json()["data"]:
                if name.rstrip("/") not in own:
                    assert root.ask("DELETE", f"sys/{kind}/{name.rstrip('/')}").status_code == 204
        for name in root.ask("LIST", "sys/policies/acl").json()["data"]["keys"]:
            if name not in {"root", "default"}:
                assert root.ask("DELETE", f"sys/policies/acl/{name}").status_code == 204

    def state(self) -> dict[str, object]:
        """All mounts and policies, to compare."""
        root = self.root()
        policies = root.ask("LIST", "sys/policies/acl").json()["data"]["keys"]
        return {
            **{kind: root.ask("GET", f"sys/{kind}").json()["data"] for kind in ("mounts", "auth")},
            **{name: root.ask("GET", f"sys/policies/acl/{name}").json()["data"] for name in policies},
        }

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._ports[0])) == 0

    def _certify(self) -> None:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
                *("-keyout", "key.pem", "-out", self.certificate, "-days", "2", "-subj", "/CN=vault"),
                *("-addext", "subjectAltName=IP:127.0.0.1"),
            ],
            cwd=self._folder,
            check=True,
            capture_output=True,
        )

    def _configuration(self) -> str:
        plain, tls, cluster, roomy = self._ports
        return f"""\
api_addr = "http://127.0.0.1:{plain}"
cluster_addr = "http://127.0.0.1:{cluster}"
log_level = "warn"
storage "raft" {{
  path = "{self._folder / "data"}"
  node_id = "somebody"
  performance_multiplier = 1
}}
listener "tcp" {{
  address = "127.0.0.1:{plain}"
  cluster_address = "127.0.0.1:{cluster}"
  tls_disable = true
}}
listener "tcp" {{
  address = "127.0.0.1:{tls}"
  tls_cert_file = "{self.certificate}"
  tls_key_file = "{self._folder / "key.pem"}"
}}
listener "tcp" {{
  address = "127.0.0.1:{roomy}"
  tls_disable = true
  {JSON_STRINGS}
}}
"""


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
