"""OpenBao: keeps config. It makes itself at its first start; no root token is ever seen by anybody.

Its first start gives one identity, the operator's, the right to arrange the rest: mounts, policies, roles. These are
written through the API whenever they differ from what this version of Branchline wants, so they can change later.
"""

from __future__ import annotations

import json
import shutil
import signal as signals
from collections.abc import Callable

from branchline.layout import Layout
from branchline.stack import binaries, files
from branchline.stack.asking import ask
from branchline.stack.logs import shift
from branchline.stack.openbao_rules import arrange, fingerprint, operator_requests
from branchline.stack.part import GO_LEAN, NotReady, Part, plain_environment
from branchline.stack.process import Command, User
from branchline.wire import MAX_KEYS

LARGEST_AUDIT = 100_000_000
KEPT_AUDITS = 10
"""A read of config takes 3 kB of it: eleven files of this size hold some 350 000 reads."""


class OpenBao(Part):
    """One server with raft storage, unsealed by a key file, with every request in a file of its own register."""

    name = "openbao"

    def __init__(self, layout: Layout, user: User | None, largest_audit: int = LARGEST_AUDIT) -> None:
        self._layout = layout
        self._address = f"127.0.0.1:{layout.ports.openbao}"
        self._user = user
        self._folder = layout.home / "openbao"
        self._made = self._folder / "made"
        self._audit = self._folder / "audit.jsonl"
        self._largest_audit = largest_audit

    @property
    def endpoint(self) -> str:
        return f"http://{self._address}"

    def prepare(self) -> None:
        if not self._made.exists():
            # An unfinished first start cannot be continued, and nothing can have been stored by then.
            shutil.rmtree(self._folder / "data", ignore_errors=True)
        files.folder(self._folder / "data", user=self._user, mode=0o700)
        files.write(self._folder / "openbao.hcl", self._configuration(), user=self._user)

    def command(self) -> Command:
        return Command(
            (str(binaries.openbao(self._layout.home)), "server", f"-config={self._folder / 'openbao.hcl'}"),
            folder=self._folder,
            user=self._user,
            environment=plain_environment({**GO_LEAN, "HOME": str(self._folder)}),
        )

    def check(self) -> None:
        status = ask(self._address, "/v1/sys/health").status
        meaning = {200: "", 429: "it is on standby", 501: "it is not initialised", 503: "it is sealed"}
        if reason := meaning.get(status, f"it answers with HTTP {status}"):
            raise NotReady(reason)

    def settle(self) -> None:
        wanted = fingerprint(self._layout)
        if self._made.exists() and self._made.read_text() == wanted:
            return
        arrange(self._address, self._layout)
        files.write(self._made, wanted)

    def tend(self, signal: Callable[[signals.Signals], None]) -> None:
        if self._audit.stat().st_size <= self._largest_audit:
            return
        shift(self._audit, KEPT_AUDITS)
        signal(signals.SIGHUP)  # it goes on in the old file until then, so no line is lost

    def _configuration(self) -> str:
        ports = self._layout.ports
        return f"""\
# Written by `branchline up` at every start.
api_addr = "http://127.0.0.1:{ports.openbao}"
cluster_addr = "http://127.0.0.1:{ports.openbao_cluster}"
log_level = "warn"
storage "raft" {{
  path = {_text(self._folder / "data")}
  node_id = {_text(self._layout.instance)}
  performance_multiplier = 1
}}
listener "tcp" {{
  address = "127.0.0.1:{ports.openbao}"
  tls_disable = true
  max_request_json_strings = {2 * MAX_KEYS + 1000}
}}
seal "static" {{
  current_key_id = "first"
  current_key = {_text(f"file://{self._layout.home / 'keys' / 'openbao-seal.key'}")}
}}
audit "file" "main" {{
  options {{
    file_path = {_text(self._audit)}
    mode = "0600"
  }}
}}
initialize "operator" {{
{operator_requests(self._layout)}}}
"""


def _text(value: object) -> str:
    return json.dumps(str(value))
