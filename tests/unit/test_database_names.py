"""The names of databases: stable, short enough, and never that of another."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchline.adapters.postgres import MAX_NAME, database_name
from branchline.domain.environment import Environment, tier_of
from branchline.domain.errors import BadInput
from branchline.domain.names import NAME

names = st.from_regex(NAME, fullmatch=True)
parts = st.tuples(names, names, names) | st.tuples(names, names, names, names)


def name(project: str, environment: str, *rest: str) -> str:
    return database_name(Environment(1, project, environment, tier_of(environment), 1), *rest)


def test_names_are_readable() -> None:
    assert name("shop", "feature-x", "default") == "shop_feature-x_default"
    assert name("shop", "develop", "default", "test") == "shop_develop_default_test"


@given(parts)
def test_names_fit_and_say_what_they_are(given_parts: tuple[str, ...]) -> None:
    made = name(*given_parts)
    assert len(made) <= MAX_NAME
    assert re.fullmatch(r"[a-z_][a-z0-9_-]*", made)
    assert not made.startswith("pg_")
    assert made == name(*given_parts)


@given(parts, parts)
def test_two_names_are_the_same_only_for_the_same(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert (name(*one) == name(*other)) == (one == other)


@given(st.lists(st.sampled_from(["a", "b", "a-b", "b-a", "a-a", "a-b-a"]), min_size=6, max_size=6))
def test_dashes_never_make_two_names_one(six: list[str]) -> None:
    one, other = tuple(six[:3]), tuple(six[3:])
    assert (name(*one) == name(*other)) == (one == other)


def test_what_the_server_reserves_is_avoided() -> None:
    assert name("pg", "develop", "default") == "_pg_develop_default"
    assert name("postgres", "develop", "default") == "postgres_develop_default"


@pytest.mark.parametrize("database", ["", "a_b", "A", "a;b", 'a"b', "ä", "a" * 33])
def test_other_names_are_refused(database: str) -> None:
    with pytest.raises(BadInput):
        name("shop", "develop", database)
