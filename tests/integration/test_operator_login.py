"""Whoever may read the platform's keys can mend by hand what the embedded OpenBao holds, as the hints say."""

from __future__ import annotations

import os
import subprocess
import uuid

import pytest

from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import PlatformBroke
from branchline.domain.layers import Layer
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack import binaries, operator_login
from branchline.stack.openbao import OpenBao
from tests.openbao import Caller, RealConfigStore

pytestmark = pytest.mark.stack


def test_a_version_that_was_deleted_is_restored_with_baos_own_program(
    openbao: OpenBao, home_layout: Layout, settings: Settings
) -> None:
    store, layer = RealConfigStore(openbao, home_layout), Layer(f"p{uuid.uuid4().hex[:12]}", "production")
    place = Environment(1, layer.project, layer.name, Tier.PRODUCTION, slot=1)
    store.put(layer.project, layer.name, {"A": "1"})
    store.delete(layer, 1)
    with pytest.raises(PlatformBroke) as gone:
        store.reader(Tier.PRODUCTION).read(place)
    assert "`branchline vault login`" in gone.value.hint
    token = operator_login.log_in(settings)
    told = {"BAO_ADDR": operator_login.address_of(settings), "BAO_TOKEN": token.reveal()}
    command = [binaries.openbao(home_layout.home), "kv", "undelete", "-mount=production", "-versions=1", layer.path]
    subprocess.run(command, env={**os.environ, **told}, check=True, capture_output=True, timeout=30)
    assert store.reader(Tier.PRODUCTION).read(place)["A"].reveal() == "1"
    about = Caller(store.url, token.reveal()).ask("GET", "auth/token/lookup-self").json()["data"]
    assert about["policies"] == ["operator"]
    assert about["creation_ttl"] == 300
