"""The way back in for whoever has the platform's own machine, on the real store."""

from __future__ import annotations

import pytest

from branchline.domain.access import Permission
from branchline.domain.audit import Wanted
from branchline.domain.errors import PlatformBroke, Unauthenticated
from branchline.layout import Layout
from branchline.operations.gate import Gate
from branchline.operations.tokens import OPERATOR, Tokens
from branchline.settings import Settings
from branchline.stack.recovery import recover
from branchline.store.database import SqlStore


@pytest.mark.stack
def test_the_operator_makes_a_token_without_having_one(
    settings: Settings, home_layout: Layout, sql_store: SqlStore
) -> None:
    tokens = Tokens(sql_store, Gate(sql_store))
    file = recover(settings)
    try:
        first = file.read_text().strip()
        assert file.stat().st_mode & 0o777 == 0o600
        actor = tokens.authenticate(first)
        assert (actor.name, actor.may(Permission.PLATFORM)) == (OPERATOR, True)
        assert recover(settings) == file
        assert tokens.authenticate(file.read_text().strip()).name == OPERATOR
        with pytest.raises(Unauthenticated):
            tokens.authenticate(first)
        with sql_store.transaction() as records:
            (told,) = records.register.page(Wanted(), None, 1).items
        assert (told.actor, told.detail["token"]) == (OPERATOR, OPERATOR)
        assert told.proof.endswith("of the platform's machine")
    finally:
        file.unlink()
        with sql_store.transaction() as records:
            records.tokens.remove(records.tokens.get(OPERATOR, None))


def test_there_is_no_way_in_where_there_is_no_platform(settings: Settings, tmp_path: object) -> None:
    with pytest.raises(PlatformBroke) as refused:
        recover(settings.model_copy(update={"home": tmp_path}))
    assert refused.value.code == "not_set_up"
