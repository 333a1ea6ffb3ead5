"""Reading manifests: places, plain words, suggestions; and never anything but a manifest or its problems."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from branchline.domain.manifest import Manifest
from branchline.manifest_file import ManifestInvalid, ManifestProblem, json_schema, parse

ROOT = Path(__file__).parents[2]
GOOD = """
project: shop
services:
  web: {command: run, port: 8000, routes: [/]}
"""


def problems(text: str) -> list[ManifestProblem]:
    with pytest.raises(ManifestInvalid) as refused:
        parse(text)
    assert refused.value.code == "manifest_invalid"
    assert refused.value.problems[0].message in refused.value.sentence
    return refused.value.problems


def faults(text: str) -> list[ManifestProblem]:
    try:
        parse(text)
    except ManifestInvalid as refused:
        return refused.problems
    return []


@pytest.mark.parametrize(
    ("text", "line", "column", "words", "suggestion"),
    [
        (GOOD + "biuld: {}\n", 5, 1, "unknown key `biuld`", "did you mean `build`?"),
        (GOOD.replace("command", "comand"), 4, 9, "unknown key `comand`", "did you mean `command`?"),
        (GOOD.replace("port: 8000", "ports: [80]"), 4, 23, "unknown key `ports`", "one number"),
        (GOOD.replace("command: run,", ""), 4, 3, "`command` is missing in `services.web`", ""),
        (GOOD.replace("8000", "99999"), 4, 23, "`services.web.port`: 99999 must be at most 65535", ""),
        (GOOD.replace("8000", '"80"'), 4, 23, "`services.web.port`: '80' is no whole number", ""),
        (GOOD.replace("web", "Wörker"), 4, 3, "'Wörker' is no name", ""),
        (GOOD.replace("[/]", "[x]"), 4, 44, "'x' is no path prefix", ""),
        (GOOD + "test: pytest\n", 5, 1, "`test`: 'pytest' must be keys with values", ""),
        (GOOD + "watch: {window: soon}\n", 5, 9, "'soon' is no duration", ""),
        (GOOD + "project: again\n", 5, 1, "`project` is there twice", ""),
        (GOOD + "environments:\n  production: {on: {branch: main}}\n", 1, 1, "production moves by tag only", ""),
        (GOOD + "\tx: 1\n", 5, 1, "a tab stands where YAML wants spaces", ""),
        (GOOD + "config: {required: [A-B]}\n", 5, 21, "use letters, digits and '_', as in DATABASE_URL", ""),
        (GOOD + "config: {optional: {1A: x}}\n", 5, 21, "'1A' is no name; use letters, digits and '_'", ""),
        (GOOD + "config: {required: [A], optional: {A: x}}\n", 5, 1, "`config`: A is named twice under config", ""),
        (GOOD + "config: {required: [PORT]}\n", 2, 1, "the platform writes PORT itself", ""),
        (GOOD + "timeouts: {checkout: 5m}\n", 5, 12, "the time limit of `checkout` cannot be set", ""),
        (GOOD + "timeouts: {verify: 5m}\n", 5, 12, "'verify' is not 'build', 'test',", ""),
        ("a: [", 1, 5, "this is no YAML", ""),
        ("- a\n", 1, 1, "the file must hold keys with values", "branchline init"),
        ("", 1, 1, "the file is empty", "branchline init"),
        ("a: 1\n---\nb: 2\n", 2, 1, "more than one document", ""),
        ("a: *nowhere", 1, 4, "nothing has this anchor", ""),
        ("a: &a [*a]", 1, 4, "nested too deeply", ""),
        ("[" * 3000, 1, 1, "nested too deeply", ""),
        ("a: \x01", 1, 1, "a character that YAML does not allow", ""),
        ("? [a]\n: 1\n", 1, 3, "a key must be plain text", ""),
        ("x" * 300_000, 1, 1, "longer than 256 KiB", ""),
    ],
)
def test_what_is_wrong_and_where(text: str, line: int, column: int, words: str, suggestion: str) -> None:
    found = problems(text)
    told = next((one for one in found if words in one.message), None)
    assert told is not None, [str(one) for one in found]
    if not words.startswith("production"):
        assert (told.line, told.column) == (line, column)
    assert suggestion in told.suggestion
    assert str(told).startswith(f"branchline.yaml:{told.line}:{told.column}: ")


def test_all_problems_come_at_once_from_top_to_bottom() -> None:
    found = problems("projct: x\nservices:\n  web: {port: 0}\nwatch: 3\n")
    assert [one.line for one in found] == sorted(one.line for one in found)
    assert {one.path for one in found} >= {"projct", "services.web", "services.web.port", "watch"}


def test_aliases_cannot_explode() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for one, other in zip("bcdefg", "abcdef", strict=True):
        lines.append(f"{one}: &{one} [{', '.join(f'*{other}' for _ in range(9))}]")
    assert "aliases repeat too much" in problems("\n".join(lines))[0].message


def test_yaml_has_no_surprises_here() -> None:
    text = GOOD.replace("routes: [/]", "environment: {A: no, B: on, C: 1:30, D: 2024-01-01, E: 0x10, F: 1.50, G: ~}")
    with pytest.raises(ManifestInvalid) as refused:
        parse(text)
    assert [one.path for one in refused.value.problems] == ["services.web.environment.G"]
    manifest = parse(text.replace(", G: ~", ""))
    found = manifest.services["web"].environment
    assert found == {"A": "no", "B": "on", "C": "1:30", "D": "2024-01-01", "E": "0x10", "F": "1.5"}


def test_merge_keys_work_as_in_compose() -> None:
    text = """
    project: shop
    services:
      web: &web {command: run, port: 8000, routes: [/], stop_grace_period: 5s}
      api: {<<: *web, routes: [/api]}
    """
    assert parse(text).services["api"].stop_grace_period == 5
    assert parse(text).services["api"].routes == ["/api"]


def test_values_are_shown_short() -> None:
    assert all(len(one.message) < 200 for one in problems(GOOD.replace("8000", "'" + "9" * 5000 + "'")))


def test_an_error_survives_pickling() -> None:
    with pytest.raises(ManifestInvalid) as refused:
        parse("a: 1")
    again = pickle.loads(pickle.dumps(refused.value))
    assert (again.problems, again.sentence) == (refused.value.problems, refused.value.sentence)


@given(st.text(max_size=300) | st.text(alphabet="ab:&*[]{}<>-!|\n\t '\"#%,?1", max_size=200))
def test_any_text_is_a_manifest_or_has_problems(text: str) -> None:
    assert all(one.message for one in faults(text))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.sampled_from(["build", "test", "release", "services", "databases", "environments", "watch"]), _JSON)
def test_any_value_anywhere_has_a_place(key: str, value: object) -> None:
    text = yaml.safe_dump({"project": "shop", "services": {"web": {"command": "run"}}, key: value})
    assert all(1 <= one.line <= text.count("\n") + 1 for one in faults(text))


# --- the schema ---


@pytest.mark.parametrize("file", ["examples/shop/branchline.yaml", "tests/e2e/tiny/branchline.yaml"])
def test_examples_are_valid_for_us_and_for_editors(file: str) -> None:
    text = (ROOT / file).read_text()
    parse(text)
    # An editor's YAML 1.2 reads `on` as text, which PyYAML alone does not.
    data = yaml.load(text, Loader=yaml.BaseLoader)
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    found = list(jsonschema.Draft202012Validator(schema).iter_errors(data))
    # That loader reads numbers as text too; whatever else a schema can find wrong would be real.
    assert {fault.validator for fault in found} <= {"type", "anyOf"}, [fault.message for fault in found]


def test_a_release_that_was_stored_with_a_limit_for_checkout_can_still_be_read() -> None:
    stored = parse(GOOD + "timeouts: {build: 5m}\n").model_dump(mode="json")
    stored["timeouts"]["checkout"] = 60.0
    assert Manifest.model_validate(stored).timeouts == {"build": 300.0}


def test_the_published_schema_is_the_generated_one() -> None:
    published = json.loads((ROOT / "docs" / "manifest.schema.json").read_text())
    assert published == json.loads(json.dumps(json_schema())), "write there what `branchline schema` prints"


def test_every_key_is_described_in_the_reference() -> None:
    reference = (ROOT / "docs" / "manifest.md").read_text()
    schema = json_schema()
    keys = {key for part in [schema, *schema["$defs"].values()] for key in part.get("properties", {})}
    missing = sorted(key for key in keys if f"`{key}`" not in reference)
    assert missing == []
