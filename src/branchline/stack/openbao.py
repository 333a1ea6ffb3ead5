"""OpenBao: keeps config. It makes itself at its first start; no root token is ever seen by anybody.

Its first start gives one identity, the operator's, the right to arrange the rest: mounts, policies, roles. These are
written through the API whenever they differ from what this version of Branchline wants, so they can change later.
"""

from __future__ import annotations

import json
import shutil
import signal as signals
from collections.abc import Callable, Mapping
from typing import Any

from branchline.layout import Layout
from branchline.stack import binaries, files, seal_keys
from branchline.stack.asking import ask
from branchline.stack.logs import shift
from branchline.stack.openbao_rules import arrange, ask_as_operator, fingerprint, operator_requests
from branchline.stack.part import GO_LEAN, NotReady, Part, plain_environment
from branchline.stack.process import Command, User
from branchline.wire_config import MAX_KEYS

JSON_STRINGS = f"max_request_json_strings = {2 * MAX_KEYS + 1000}"
"""What a listener needs for layers of as many keys as one request may change: keys count, and so do values."""

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
        self.audit = self._folder / "audit.jsonl"
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
        # One at a time: else the rules as they were before a key was rotated could be written after the newer ones.
        try:
            with files.locked(self._layout.run / "openbao-rules.lock"):
                self._arrange()
        except BlockingIOError:
            raise NotReady("somebody else writes its rules") from None

    def ask(self, path: str, data: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Read a path with the operator's rights, or write `data` there. Raises NotReady where it is not taken."""
        return ask_as_operator(self._address, self._layout, path, data)

    def is_configured(self) -> bool:
        """Whether it was started last with what `prepare` would write now."""
        return (self._folder / "openbao.hcl").read_text() == self._configuration()

    def audits(self) -> bool:
        """Whether it writes every request into `audit`, which is still where it was. Raises NotReady."""
        devices = self.ask("sys/audit").values()
        there = any((device.get("options") or {}).get("file_path") == str(self.audit) for device in devices)
        return there and self.audit.exists()

    def allow_new_seal(self) -> None:
        """Make it able to change the key that it unseals itself with; may be repeated. Raises NotReady.

        It seals anew what it has only where there is a recovery key, which a server that made itself has not. Nobody
        needs to know that key, and nobody gets to: with it one could make oneself a root token.
        """
        if not self.ask("sys/rotate/recovery/init").get("required"):
            self.ask("sys/rotate/recovery/init", {"secret_shares": 1, "secret_threshold": 1})

    def tend(self, signal: Callable[[signals.Signals], None]) -> None:
        if self.audit.stat().st_size <= self._largest_audit:
            return
        shift(self.audit, KEPT_AUDITS)
        signal(signals.SIGHUP)  # it goes on in the old file until then, so no line is lost

    def _arrange(self) -> None:
        wanted = fingerprint(self._layout)
        if self._made.exists() and self._made.read_text() == wanted:
            return
        arrange(self._address, self._layout)
        files.write(self._made, wanted)

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
  {JSON_STRINGS}
}}
seal "static" {{
{self._seal()}}}
audit "file" "main" {{
  options {{
    file_path = {_text(self.audit)}
    mode = "0600"
  }}
}}
initialize "operator" {{
{operator_requests(self._layout)}}}
"""

    def _seal(self) -> str:
        lines = []
        for which, key in zip(("current", "previous"), seal_keys.in_use(self._layout.home / "keys"), strict=False):
            lines += [f"  {which}_key_id = {_text(key.id)}", f"  {which}_key = {_text(f'file://{key.path}')}"]
        return "".join(f"{line}\n" for line in lines)


def _text(value: object) -> str:
    return json.dumps(str(value))
