"""Keys are rotated while people work: no login fails, the old key is refused, an interruption harms nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from branchline.adapters.identity import Identity, Signer
from branchline.domain.config import Secret
from branchline.domain.environment import Environment, Tier, usually_inherits
from branchline.domain.errors import BadInput, BranchlineError, Conflict, PlatformBroke
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack import first_start, keeper, key_rotation, seal_keys, vault_setup
from branchline.stack.key_rotation import Embedded, rotate, seal_steps, signing_steps
from branchline.stack.ledger import Ledger
from branchline.stack.openbao import OpenBao
from branchline.stack.restart import restart
from branchline.stack.supervisor import Supervisor
from tests.conftest import discard, new_layout
from tests.openbao import Caller, RealConfigStore, claims, operator

pytestmark = pytest.mark.stack

NAMES = ["server", "nonprod", "production", "operator"]
ENVIRONMENTS = {Tier.NONPROD: "develop", Tier.PRODUCTION: "production"}


class Platform:
    """OpenBao under a supervisor, with a value for each tier."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.keys = layout.home / "keys"
        self.settings = Settings(home=layout.home)
        self.openbao = OpenBao(layout, first_start.account())
        self.store = RealConfigStore(self.openbao, layout)

    def read(self, tier: Tier) -> dict[str, str]:
        """As a runner that has not logged in yet."""
        name = ENVIRONMENTS[tier]
        environment = Environment(1, "shop", name, tier, slot=1, inherits=usually_inherits(name))
        found = self.store.reader(tier).read(environment)
        return {key: value.reveal() for key, value in found.items()}

    def works(self) -> None:
        """Everybody with a key gets in, and what was stored can be read."""
        assert {tier: self.read(tier) for tier in Tier} == {Tier.NONPROD: {"A": "1"}, Tier.PRODUCTION: {"A": "2"}}
        self.store.put("shop", "_common", {"B": str(random.random())})
        self.store.put("shop", "_common", {"B": None})
        self.read(Tier.NONPROD)
        assert operator(self.openbao.endpoint, self.layout).ask("GET", "sys/mounts").status_code == 200

    def lets_in(self, name: str, key: Secret) -> bool:
        signer = Signer(lambda: key)
        match name:
            case "server":
                role, token = "config-writer", signer.server()
            case "operator":
                from joserfc import jwt
                from joserfc.jwk import ECKey

                given = claims(sub="operator", aud="branchline-operator")
                role, token = "operator", jwt.encode({"alg": "ES256"}, given, ECKey.import_key(key.reveal()))
            case _:
                role, token = "runtime", signer.runtime(Identity(name, "shop", "alpha", "_common", "develop"))
        return Caller(self.openbao.endpoint).log_in(f"jwt-{name}", role, token).status_code == 200

    def kill_openbao(self) -> None:
        restart(self.layout, self.openbao)

    def names(self) -> set[str]:
        return {path.name for path in self.keys.iterdir()}


@contextmanager
def platform_of_its_own() -> Iterator[Platform]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper, "LONGEST_PAUSE", 0.4)  # it is restarted more often than it can be healthy in between
        patch.setattr(vault_setup, "_LOGINS_END", 0.2)  # a login takes milliseconds here
        yield from _platform()


def _platform() -> Iterator[Platform]:
    layout = new_layout()
    made = Platform(layout)
    supervisor = Supervisor(layout, [made.openbao], lambda *_: None)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        end = time.monotonic() + 60
        while not ((entry := Ledger(layout.run).read("openbao")) and entry.up):
            assert time.monotonic() < end
            time.sleep(0.1)
        made.store.put("shop", "develop", {"A": "1"})
        made.store.put("shop", "production", {"A": "2"})
        yield made
    finally:
        supervisor.end()
        thread.join(60)
        discard(layout)


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with platform_of_its_own() as made:
        yield made


class Busy:
    """Reads all the time, each time with a login of its own; keeps what went wrong."""

    def __init__(self, platform: Platform) -> None:
        self.done = dict.fromkeys(Tier, 0)
        self.failures: list[Exception] = []
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(platform, tier)) for tier in Tier]

    def __enter__(self) -> Busy:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(30)

    def _read(self, platform: Platform, tier: Tier) -> None:
        while not self._ending.is_set():
            try:
                assert platform.read(tier)["A"]
                self.done[tier] += 1
            except Exception as failure:
                self.failures.append(failure)


# --- keys to sign with -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_nobody_fails_to_log_in_while_a_key_is_rotated(platform: Platform, name: str) -> None:
    old = platform.layout.key(f"{name}.pem")
    others = {path: path.read_bytes() for path in platform.keys.iterdir() if path.stem != name}
    before = platform.names()
    told: list[str] = []
    with Busy(platform) as busy:
        rotate(platform.settings, name, told.append, grace=1.0)
    assert busy.failures == []
    assert min(busy.done.values()) > 5
    assert told[0] == "a new key is made"
    assert platform.layout.key(f"{name}.pem").reveal() != old.reveal()
    assert platform.lets_in(name, platform.layout.key(f"{name}.pem"))
    assert not platform.lets_in(name, old)
    assert platform.names() == before
    assert all(path.read_bytes() == content for path, content in others.items())
    assert (platform.keys / f"{name}.pem").stat().st_mode & 0o777 == 0o600
    platform.works()
    platform.kill_openbao()  # what it knows now is also what it is told at a start
    platform.works()
    assert not platform.lets_in(name, old)


@pytest.mark.parametrize("restarts", [False, True], ids=["", "openbao-restarts"])
@pytest.mark.parametrize("name", ["nonprod", "operator"])
def test_a_rotation_that_ends_after_any_step_is_gone_on_with(platform: Platform, name: str, restarts: bool) -> None:
    before = platform.names()
    steps = len(list(signing_steps(platform.keys, name, Embedded(platform.openbao), 0.0)))
    for ends_after in range(1, steps):
        old = platform.layout.key(f"{name}.pem")
        begun = signing_steps(platform.keys, name, Embedded(platform.openbao), 0.0)
        for _ in range(ends_after):
            next(begun)
        begun.close()
        if restarts:
            platform.kill_openbao()
        platform.works()
        rotate(platform.settings, name, lambda _: None, grace=0.0)
        platform.works()
        assert not platform.lets_in(name, old)
        assert platform.names() == before


def test_a_rotation_that_is_killed_anywhere_is_gone_on_with(platform: Platform) -> None:
    before = platform.names()
    code = (
        "from branchline.stack.key_rotation import rotate; from branchline.settings import Settings\n"
        "for name in ('nonprod', 'server', 'operator'): rotate(Settings(), name, print, grace=0.05)\n"
    )
    environment = {**os.environ, "BRANCHLINE_HOME": str(platform.layout.home), "PYTHONUNBUFFERED": "1"}
    olds = [(name, platform.layout.key(f"{name}.pem")) for name in ("nonprod", "server", "operator")]
    for _ in range(6):
        child = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        assert child.stdout
        child.stdout.readline()
        time.sleep(random.uniform(0, 0.8))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        platform.works()
    for name in ("nonprod", "server", "operator"):
        rotate(platform.settings, name, lambda _: None, grace=0.0)
    assert platform.names() == before
    assert not any(platform.lets_in(name, old) for name, old in olds)
    platform.works()


def test_one_rotation_at_a_time(platform: Platform) -> None:
    begun = threading.Event()
    first = threading.Thread(target=rotate, args=(platform.settings, "nonprod", lambda _: begun.set(), 1.0))
    first.start()
    assert begun.wait(10)
    with pytest.raises(Conflict) as refused:
        rotate(platform.settings, "production", lambda _: None)
    assert refused.value.code == "rotation_runs"
    first.join(30)
    platform.works()


def test_a_store_of_somebody_elses_must_know_the_new_key_first(platform: Platform) -> None:
    settings = Settings(home=platform.layout.home, vault_url=platform.openbao.endpoint)
    for name in ("nonprod", "server"):
        old = platform.layout.key(f"{name}.pem")
        with pytest.raises(Conflict) as refused:
            rotate(settings, name, lambda _: None, grace=0.0)
        assert refused.value.code == "new_key_unknown"
        assert platform.layout.key(f"{name}.pem").reveal() == old.reveal()
        platform.works()
        platform.openbao.settle()  # what `branchline vault setup` does to another Vault
        told: list[str] = []
        rotate(settings, name, told.append, grace=0.0)
        assert "vault setup" in told[-1]
        platform.works()
        platform.openbao.settle()
        assert not platform.lets_in(name, old)
    with pytest.raises(BadInput) as external:
        rotate(settings, "seal", lambda _: None)
    assert external.value.code == "vault_is_external"


def test_it_is_noticed_when_nobody_writes_down_who_reads(platform: Platform) -> None:
    assert platform.openbao.audits()
    hidden = platform.openbao.audit.with_name("elsewhere")
    platform.openbao.audit.rename(hidden)
    assert not platform.openbao.audits()
    hidden.rename(platform.openbao.audit)
    assert platform.openbao.audits()


# --- the key that OpenBao unseals itself with ------------------------------------------------------------------------


def seal_files(platform: Platform) -> list[str]:
    return sorted(path.name for path in platform.keys.glob("*openbao-seal*"))


def test_openbao_starts_with_its_new_key_alone(platform: Platform) -> None:
    first = seal_keys.in_use(platform.keys)[0]
    content = first.path.read_bytes()
    with Busy(platform) as busy:
        rotate(platform.settings, "seal", lambda _: None)
    assert all(isinstance(failure, PlatformBroke) and failure.passing for failure in busy.failures), busy.failures
    [now] = seal_keys.in_use(platform.keys)
    assert seal_files(platform) == [now.path.name]
    assert now.number == first.number + 1
    assert now.path.read_bytes() != content
    assert now.path.stat().st_mode & 0o777 == 0o600
    configured = (platform.layout.home / "openbao" / "openbao.hcl").read_text()
    assert f'current_key_id = "{now.id}"' in configured
    assert "previous_key" not in configured
    platform.works()
    platform.kill_openbao()
    first_start.establish(platform.layout.home)
    assert seal_files(platform) == [now.path.name]
    platform.works()


def test_a_rotation_of_the_seal_that_ends_after_any_step_is_gone_on_with(platform: Platform) -> None:
    steps = len(list(seal_steps(platform.layout, platform.openbao)))
    for ends_after in range(1, steps):
        begun = seal_steps(platform.layout, platform.openbao)
        number = seal_keys.in_use(platform.keys)[0].number
        for _ in range(ends_after):
            next(begun)
        begun.close()
        platform.works()
        platform.kill_openbao()
        platform.works()
        rotate(platform.settings, "seal", lambda _: None)
        [now] = seal_keys.in_use(platform.keys)
        assert seal_files(platform) == [now.path.name]
        assert now.number > number
        platform.works()


def test_openbao_gets_its_old_key_back_where_the_new_one_does_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with platform_of_its_own() as platform:
        with monkeypatch.context() as patch:
            patch.setattr(OpenBao, "allow_new_seal", lambda _: None)  # so it does not seal anew what it has
            patch.setattr(key_rotation, "restart", partial(restart, limit=6.0))
            with pytest.raises(BranchlineError) as failed:
                rotate(platform.settings, "seal", lambda _: None)
        assert failed.value.code == "not_rotated"
        assert len(seal_files(platform)) == 2
        platform.works()
        rotate(platform.settings, "seal", lambda _: None)
        assert seal_files(platform) == ["openbao-seal.2.key"]
        platform.works()


def test_nothing_is_rotated_on_a_platform_that_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_rotation, "LEARN_LIMIT", 0.1)
    layout = new_layout()
    try:
        for name in ("seal", "nonprod"):
            with pytest.raises(PlatformBroke) as refused:
                rotate(Settings(home=layout.home), name, lambda _: None)
            assert refused.value.code == "config_unreachable"
        assert len(seal_keys.in_use(layout.home / "keys")) == 1
    finally:
        discard(layout)
