"""The rules of the domain: names, refs, manifests, secrets, permissions, errors."""

from __future__ import annotations

import json
import pickle
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from branchline.domain import values
from branchline.domain.access import EVERYWHERE, ROLES, Actor, Permission, Role, Scope
from branchline.domain.config import Config, Secret, check_key, check_value
from branchline.domain.environment import Tier, destination, hostname, short
from branchline.domain.errors import BadInput, Refused
from branchline.domain.manifest import Manifest
from branchline.domain.names import NAME, check_name, slug
from branchline.domain.project import check_repository
from branchline.domain.release import build_key

SMALLEST = {"project": "shop", "services": {"web": {"command": "run", "port": 8000, "routes": ["/"]}}}


def manifest(**more: object) -> Manifest:
    return Manifest.model_validate({**SMALLEST, **more})


# --- names ---


@given(st.text(min_size=1, max_size=400))
def test_every_ref_has_a_slug_that_is_a_name(ref: str) -> None:
    assert re.fullmatch(NAME, slug(ref))
    assert len(slug(ref)) <= 32


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_distinct_refs_have_distinct_slugs(one: str, other: str) -> None:
    assert (slug(one) == slug(other)) is (one == other)


@pytest.mark.parametrize("ref", ["Feature/X", "feature/x", "feature-x", "FEATURE/X", "feature_x", "feature/x/"])
def test_likely_collisions_do_not_collide(ref: str) -> None:
    others = {"Feature/X", "feature/x", "feature-x", "FEATURE/X", "feature_x", "feature/x/"} - {ref}
    assert slug(ref) not in {slug(other) for other in others}


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "a b", "ünïcode", "x" * 300, "-a", "a-", "A", "1a", "a\n", "a\x00", "a_b", "--help"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(BadInput) as refused:
        check_name(name)
    assert refused.value.code == "bad_name"
    assert len(refused.value.sentence) < 200


# --- refs and environments ---


def test_refs_lead_where_the_manifest_says() -> None:
    shop = manifest(
        environments={
            "develop": {"on": {"branch": "develop"}},
            "staging": {"on": {"branch": "main"}},
            "production": {"on": {"tag": "v*"}},
        }
    )
    assert destination(shop, "refs/heads/develop").name == "develop"
    assert destination(shop, "refs/heads/main").name == "staging"
    assert destination(shop, "refs/tags/v1.2.3") == destination(shop, "refs/tags/v9")
    assert destination(shop, "refs/tags/v1").tier is Tier.PRODUCTION
    for ref in ("refs/heads/v1", "refs/tags/develop", "refs/heads/feature/x", "refs/pull/1/head"):
        with pytest.raises(BadInput) as refused:
            destination(shop, ref)
        assert refused.value.code == "no_environment"
        assert "develop" in refused.value.hint


@pytest.mark.parametrize(
    "environments",
    [
        {"production": {"on": {"branch": "main"}}},
        {"staging": {"on": {"tag": "v*"}}},
        {"develop": {"on": {"branch": "*"}}},
        {"develop": {"on": {}}},
        {"develop": {"on": {"branch": "a", "tag": "b"}}},
        {"develop": {"on": {"branch": "a"}}, "staging": {"on": {"branch": "a"}}},
        {},
    ],
)
def test_rules_that_could_surprise_are_refused(environments: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        manifest(environments=environments)


def test_words_for_refs_and_hosts() -> None:
    assert short("refs/heads/feature/x") == "branch feature/x"
    assert short("refs/tags/v1") == "tag v1"
    assert hostname("develop", "shop", "example.com") == "develop-shop.example.com"


# --- the manifest ---


@pytest.mark.parametrize(
    "service",
    [
        {},
        {"command": "run", "port": 0},
        {"command": "run", "port": 65536},
        {"command": "run", "port": "8000"},
        {"command": "run", "routes": ["/"]},
        {"command": "run", "healthcheck": {"path": "/up"}},
        {"command": "run", "port": 80, "healthcheck": {"path": "/up", "tcp": True}},
        {"command": "run", "port": 80, "routes": ["no-slash"]},
        {"command": "run", "port": 80, "routes": ["/../etc"]},
        {"command": "run", "environment": {"1BAD": "x"}},
        {"command": "run", "deploy": {"replicas": 0}},
        {"command": "run", "deploy": {"replicas": 9}},
        {"command": "run", "deploy": {"resources": {"limits": {"memory": "1M"}}}},
        {"command": "run", "comand": "typo"},
        {"command": ""},
        {"command": "unclosed 'quote"},
    ],
)
def test_services_that_cannot_work(service: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        manifest(services={"web": service})


def test_a_manifest_survives_json() -> None:
    shop = manifest(test={"command": "pytest -q"}, release=["./manage.py", "migrate"], watch={"window": "1m30s"})
    assert Manifest.model_validate(json.loads(shop.model_dump_json())) == shop
    assert shop.watch.window == 90
    assert shop.services["web"].command == ("run",)


def test_yaml_scalars_become_text() -> None:
    service = {"command": "run", "environment": {"DEBUG": True, "WORKERS": 4, "RATIO": 0.5}}
    assert manifest(services={"web": service}).services["web"].environment == {
        "DEBUG": "true",
        "WORKERS": "4",
        "RATIO": "0.5",
    }


def test_what_goes_into_a_build_names_it() -> None:
    one, other = manifest(), manifest(build={"target": "runtime"})
    assert build_key("a", one, "develop") == build_key("a", manifest(), "develop")
    assert len({build_key("a", one, "develop"), build_key("b", one, "develop"), build_key("a", other, "develop")}) == 3
    assert build_key("a", one, "develop") == build_key("a", manifest(watch={"window": "1s"}), "develop")


@given(st.floats(min_value=0, max_value=1e6, allow_nan=False))
def test_durations_in_seconds_are_themselves(seconds: float) -> None:
    assert values.parse_duration(seconds) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1m30s", 90), ("500ms", 0.5), ("7d", 604800), ("2h", 7200)]
)
def test_durations(text: str, seconds: float) -> None:
    assert values.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "10", "10 s", "-1s", "1x", "1m 30s", True, None, -1])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="no duration"):
        values.parse_duration(text)


@pytest.mark.parametrize(("text", "size"), [("256M", 268435456), ("1g", 1024**3), ("512k", 524288), (4096, 4096)])
def test_sizes(text: object, size: int) -> None:
    assert values.parse_size(text) == size


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.5", 0.5), (1, 1.0), ("100%", 1.0)])
def test_shares(text: object, share: float) -> None:
    assert values.parse_share(text) == pytest.approx(share)


# --- secrets and config ---


def test_a_secret_cannot_be_printed_or_pickled() -> None:
    secret = Secret("hunter2hunter2")
    config = Config({"KEY": secret}, {"shop/env/develop": 3})
    shown = f"{secret} {secret!r} {[secret]} {config!r} {vars(config)}"
    assert "hunter2" not in shown
    with pytest.raises(TypeError):
        pickle.dumps(secret)


@pytest.mark.parametrize("key", ["", "1A", "A-B", "A B", "A=B", "Ä", "A\n", "../X", "A" * 129])
def test_keys_that_name_no_variable(key: str) -> None:
    with pytest.raises(BadInput) as refused:
        check_key(key)
    assert refused.value.code == "bad_key"


@pytest.mark.parametrize("value", ["nul\x00inside-the-value", "inside-the-value" * 10_000])
def test_values_that_no_process_can_receive(value: str) -> None:
    with pytest.raises(BadInput) as refused:
        check_value("KEY", value)
    assert "inside-the-value" not in str(refused.value) + refused.value.hint


# --- projects and access ---


@pytest.mark.parametrize(
    "url", ["/srv/shop.git", "https://git.example.com/shop.git", "git@example.com:shop.git", "ssh://git@host/shop"]
)
def test_addresses_of_repositories(url: str) -> None:
    assert check_repository(url) == url


@pytest.mark.parametrize(
    "url",
    ["", "--upload-pack=evil", "ext::sh -c evil", "shop", "https://", "https://u:secret@host/x", "/a b", "ftp://h/x"],
)
def test_what_git_is_never_given(url: str) -> None:
    with pytest.raises(BadInput) as refused:
        check_repository(url)
    assert "secret" not in refused.value.sentence


def test_roles_grow() -> None:
    ladder = [ROLES[role] for role in Role]
    assert all(lower < higher for lower, higher in pairwise(ladder))
    for_maintainers = {
        Permission.DEPLOY_PRODUCTION,
        Permission.ROLLBACK_PRODUCTION,
        Permission.RUN_PRODUCTION,
        Permission.THAW_PRODUCTION,
        Permission.CONFIG_PRODUCTION,
    }
    assert ROLES[Role.MAINTAINER] - ROLES[Role.DEVELOPER] == for_maintainers | {Permission.MEMBERS}
    assert not any(Permission.CONFIG_READ_PRODUCTION in held for held in ROLES.values())


def test_a_role_holds_where_it_was_given() -> None:
    ada = Actor("ada", "token ada", {"shop": Role.MAINTAINER, "till": Role.VIEWER})
    assert ada.may(Permission.DEPLOY_PRODUCTION, "shop")
    assert not ada.may(Permission.DEPLOY, "till")
    assert not ada.may(Permission.READ, "other")
    assert not ada.may(Permission.READ), "not on all of the platform"
    assert ada.projects(Permission.READ) == {"shop", "till"}
    assert ada.projects(Permission.DEPLOY) == {"shop"}
    assert not ada.may_somewhere(Permission.PLATFORM)


def test_the_higher_of_two_roles_counts() -> None:
    both = Actor("ada", "token ada", {EVERYWHERE: Role.DEVELOPER, "shop": Role.VIEWER, "till": Role.MAINTAINER})
    assert [both.role(name) for name in ("shop", "till", "other", None)] == [
        Role.DEVELOPER,
        Role.MAINTAINER,
        Role.DEVELOPER,
        Role.DEVELOPER,
    ]
    assert both.projects(Permission.READ) is None


def test_a_scope_narrows_and_never_widens() -> None:
    narrow = Scope(frozenset({"shop", "other"}), frozenset({Permission.READ, Permission.DEPLOY}))
    ada = Actor("ada", "token ci", {EVERYWHERE: Role.ADMIN}, narrow)
    assert ada.may(Permission.DEPLOY, "shop")
    assert not ada.may(Permission.DEPLOY, "till")
    assert not ada.may(Permission.CONFIG_READ, "shop")
    assert not ada.may(Permission.PLATFORM), "what is narrowed to projects is not of the platform"
    assert ada.projects(Permission.READ) == {"shop", "other"}
    little = Actor("bob", "token ci", {"shop": Role.VIEWER}, narrow)
    assert not little.may(Permission.DEPLOY, "shop")
    assert not little.may(Permission.READ, "other")
    assert little.projects(Permission.READ) == {"shop"}


SCOPES = st.builds(
    Scope,
    st.none() | st.frozensets(st.sampled_from(["shop", "till", "other"])),
    st.none() | st.frozensets(st.sampled_from(list(Permission))),
)


@given(SCOPES, SCOPES, st.sampled_from(list(Permission)), st.sampled_from(["shop", "till", "other", None]))
def test_what_is_within_a_scope_admits_nothing_more(
    one: Scope, other: Scope, permission: Permission, project: str | None
) -> None:
    if one.within(other) and one.admits(permission, project):
        assert other.admits(permission, project)


def test_a_refusal_says_what_is_missing() -> None:
    viewer = Actor("ada", "token ada", {"shop": Role.VIEWER})
    with pytest.raises(Refused) as refused:
        viewer.require(Permission.DEPLOY, "shop")
    assert "environment:deploy" in refused.value.sentence
    assert "it takes developer" in refused.value.hint
    assert "Without a role in till" in viewer.refusal(Permission.READ, "till").hint
    narrowed = Actor("ada", "token ci", {"shop": Role.ADMIN}, Scope(permissions=frozenset()))
    assert "narrowed" in narrowed.refusal(Permission.READ, "shop").hint
    assert viewer.refusal(Permission.CONFIG_READ_PRODUCTION, "shop").code == "production_config_unreadable"
