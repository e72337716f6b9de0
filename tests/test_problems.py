"""Unit: what pydantic finds wrong becomes lines that say where, what was found, what is known and what to do."""

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ds_trainer.problems import legible, nearest_name, problems_of, reason_of, shown, told_once


class Wheel(BaseModel):
    model_config = ConfigDict(extra="forbid")

    num_spokes: int = Field(32, ge=3)
    rim_material: str = "steel"


class Bicycle(BaseModel):
    model_config = ConfigDict(extra="forbid")

    owner: str = Field(description="who rides it")
    front: Wheel = Wheel()
    rear: Wheel | None = None
    spare_tyres: list[int] = []


def problems(values: Any, **options: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Bicycle.model_validate(values, strict=True)
    return problems_of(caught.value, Bicycle, **options)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("sead", "did you mean 'seed'?"),
        ("SEED", "did you mean 'seed'?"),
        ("num-epochs", "did you mean 'num_epochs'?"),
        ("epochs", "did you mean 'num_epochs'?"),
        ("selected_signs", "did you mean 'selected_signs_from' or 'selected_signs_to'?"),
        ("xyz", "known names: num_epochs, seed, selected_signs_from, selected_signs_to"),
    ],
)
def test_nearest_names_or_all_when_none_is_near(name: str, remedy: str) -> None:
    assert nearest_name(name, ["selected_signs_to", "seed", "num_epochs", "selected_signs_from"]) == remedy


def test_nearest_name_of_none() -> None:
    assert nearest_name("anything", []) == "known names: "


def test_unknown_name_gets_the_nearest_name_at_its_own_depth() -> None:
    found = problems({"owner": "ann", "frnt": {}, "front": {"spokes": 3}, "rear": {"ownr": "bob", "rim_matrial": "x"}})
    assert found == [
        "front.spokes: unknown name; did you mean 'num_spokes'?",
        "rear.ownr: unknown name; known names: num_spokes, rim_material",
        "rear.rim_matrial: unknown name; did you mean 'rim_material'?",
        "frnt: unknown name; did you mean 'front'?",
    ]


def test_missing_name_says_what_it_is() -> None:
    assert problems({}) == ["owner: missing; expected who rides it"]


def test_wrong_values_are_shown_with_what_is_wanted() -> None:
    found = problems({"owner": "ann", "front": {"num_spokes": 2}, "spare_tyres": [28, "wide"]})
    assert found == [
        "front.num_spokes: found 2; input should be greater than or equal to 3",
        "spare_tyres.1: found 'wide'; input should be a valid integer",
    ]


def test_long_values_are_cut_short() -> None:
    (line,) = problems({"owner": ["x" * 200]})
    assert line.startswith("owner: found ['xxx")
    assert line.endswith("...; input should be a valid string")
    assert len(line) < 120


def test_refused_names_show_their_remedy() -> None:
    values = {"owner": "ann", "front": {"engine": 1, "brake": 2}}
    refused = {"front.engine": "a bicycle has none; pedal"}
    assert problems(values, refused=refused) == [
        "front.engine: a bicycle has none; pedal",
        "front.brake: unknown name; known names: num_spokes, rim_material",
    ]


def test_names_and_reasons_are_shown_in_one_legible_line() -> None:
    assert legible("num_epochs") == "num_epochs"
    assert legible("a\nb\x1b") == r"'a\nb\x1b'"
    assert legible("x" * 100) == "'" + "x" * 56 + "..."
    assert shown(10**5000) == "int too large to show"
    assert reason_of(EOFError()) == "EOFError"
    assert reason_of(ValueError("two\n  lines")) == "two lines"
    assert reason_of(ValueError("\x1b[31m")) == r"'\x1b[31m'"


def test_thousands_of_problems_are_cut_short() -> None:
    found = problems({"owner": "ann", **{f"x{number}": 1 for number in range(5000)}})
    assert len(found) == 21
    assert found[-1] == "... and 4980 more problems like these"


def test_known_names_are_listed_once() -> None:
    listed = nearest_name("xyz", ["seed", "num_epochs"])
    told = told_once([f"a: {listed}", "b: another problem", f"c: {listed}", f"d: {nearest_name('xyz', ['other'])}"])
    assert told == [f"a: {listed}", "b: another problem", "c: known names: as above", "d: known names: other"]
    assert told_once(told) == told
