"""Spec: every problem of a file is told where the reader wrote it."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field
from support.sentences import raising, reads, says

from quadbench.devices.lab.farm_file import FarmFile
from quadbench.errors import SpecError
from quadbench.nightly.night_file import NightFile
from quadbench.recipe import Recipe
from quadbench.spec import Name, Problem, Spec, load, refuse
from quadbench.spec.spec_model import SpecPath
from quadbench.target.profile import DeviceProfile


class Circle(Spec):
    """A shape."""

    shape: Literal["circle"]
    radius_mm: float = Field(gt=0)


class Square(Spec):
    """Another shape."""

    shape: Literal["square"]
    side_mm: int = Field(ge=1, le=9)
    circle: bool = False


class Drawing(Spec):
    """The model that the tests load."""

    schema_version: Literal[1]
    name: Name
    shapes: tuple[Annotated[Circle | Square, Field(discriminator="shape")], ...] = Field(default=(), max_length=3)
    named: dict[Name, Annotated[Circle | Square, Field(discriminator="shape")]] = Field(default_factory=dict)
    colour: Literal["red", "blue"] | None = None
    texture: SpecPath | None = None


HEAD = "schema_version: 1\nname: house\n"


@pytest.fixture
def problems(tmp_path: Path):
    """Return a function: text or bytes of a file -> its problems without the file's name."""

    def problems_of(content: str | bytes) -> list[str]:
        path = tmp_path / "drawing.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(SpecError) as caught:
            load(path, Drawing)
        assert all(problem.startswith(f"{path}:") for problem in caught.value.problems)
        return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]

    return problems_of


def write(folder: Path, text: str) -> Path:
    path = folder / "drawing.yaml"
    path.write_text(text)
    return path


def test_a_right_file_becomes_the_model(tmp_path):
    drawing = load(
        write(tmp_path, HEAD + "shapes:\n  - {shape: circle, radius_mm: 2}\n  - {shape: square, side_mm: 3}\n"), Drawing
    )
    assert drawing.shapes == (Circle(shape="circle", radius_mm=2.0), Square(shape="square", side_mm=3))


def test_a_relative_path_is_taken_from_the_folder_of_the_file(tmp_path):
    assert load(write(tmp_path, HEAD + "texture: ../wood.png\n"), Drawing).texture == tmp_path / "../wood.png"


def test_an_absolute_path_stays(tmp_path):
    assert load(write(tmp_path, HEAD + "texture: /usr/share/wood.png\n"), Drawing).texture == Path("/usr/share/wood.png")


def test_a_byte_order_mark_is_no_problem(tmp_path):
    path = tmp_path / "drawing.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + HEAD.encode())
    assert load(path, Drawing).name == "house"


def test_all_problems_come_at_once_in_the_order_of_their_lines(problems):
    text = "schema_version: 1\nname: House\ncolour: green\nshapes:\n  - {shape: square, side_mm: 10, radius: 1}\n"
    reads(
        problems(text),
        "2: name",
        "House",
        "3: colour",
        "green",
        "5: shapes[0].side_mm",
        1,
        9,
        10,
        "5: shapes[0].radius",
        "side_mm",
    )


def test_an_unknown_key_gets_the_nearest_known_one_proposed(problems):
    reads(problems(HEAD + "color: red\n"), "3: color", "colour")


def test_a_key_that_is_too_long_to_read_is_shortened(problems):
    (problem,) = problems(HEAD + f"? {'k' * 5000}\n: red\n")
    says(problem)
    assert len(problem) < 200


def test_a_missing_key_stands_at_the_line_of_its_parent(problems):
    assert problems(HEAD + "shapes:\n\n  - shape: circle\n") == ["5: shapes[0].radius_mm: missing"]


def test_a_missing_tag_names_the_choices(problems):
    reads(problems(HEAD + "shapes:\n  - radius_mm: 1\n"), "4: shapes[0].shape")


def test_a_wrong_tag_names_the_choices(problems):
    reads(problems(HEAD + "shapes:\n  - shape: cirle\n"), "4: shapes[0].shape", "cirle")


def test_a_key_that_is_spelled_like_a_tag_keeps_its_place(problems):
    text = (
        HEAD + "shapes:\n  - shape: square\n    circle: 1\n    side_mm: 1\n  - shape: circle\n    circle: 1\n    radius_mm: 0\n"
    )
    reads(problems(text), "5: shapes[0].circle", 1, "8: shapes[1].circle", "radius_mm", "9: shapes[1].radius_mm", 0)


def test_a_location_in_a_mapping_of_names_is_what_the_reader_wrote(problems):
    assert problems(HEAD + "named:\n  circle: {shape: circle}\n") == ["4: named.circle.radius_mm: missing"]


def test_a_wrong_name_of_an_entry_stands_at_its_line(problems):
    reads(problems(HEAD + "named:\n  My Circle: {shape: circle, radius_mm: 1}\n"), 4, "named.My", "My Circle")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("'3'", 3),
        ("true", ""),
        ("", ""),
        ("[3]", ""),
        ("{a: 3}", ""),
        ("2.5", ""),
        ("2026-01-01", "2026-01-01"),
    ],
)
def test_a_wrong_type_says_what_was_found(problems, value, named):
    reads(problems(HEAD + f"shapes:\n  - shape: square\n    side_mm: {value}\n"), "5: shapes[0].side_mm", named)


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_a_number_that_is_not_finite_is_refused(problems, value):
    (problem,) = problems(HEAD + f"shapes:\n  - shape: circle\n    radius_mm: {value}\n")
    says(problem, "5: shapes[0].radius_mm", 0)


@pytest.mark.parametrize("value", ["010", "0x10", "1:30", "1_000"])
def test_a_number_that_yaml_reads_unlike_people_is_refused(problems, value):
    reads(problems(HEAD + f"shapes:\n  - shape: square\n    side_mm: {value}\n"), "5: shapes[0].side_mm", value)


def test_a_list_of_wrong_entries_is_not_called_too_short(tmp_path):
    class Numbers(Spec):
        numbers: tuple[int, ...] = Field(min_length=1)

    with pytest.raises(SpecError) as caught:
        load(write(tmp_path, "numbers: [one, two]\n"), Numbers)
    assert len(caught.value.problems) == 2


def test_a_list_that_is_too_long_says_how_long(problems):
    reads(problems(HEAD + "shapes: [" + "{shape: square, side_mm: 1}, " * 4 + "]\n"), "3: shapes", 3, 4)


def test_a_duplicate_key_names_the_first_line(problems):
    reads(problems(HEAD + "colour: red\nname: hut\n"), "4: name", 2)


def test_a_key_that_is_no_text_is_refused(problems):
    reads(problems(HEAD + "? [a, b]\n: c\n"), 3)


def test_another_schema_version_is_the_only_problem(problems):
    reads(problems("name: 3\nschema_version: 2\nnew: key\n"), "2: schema_version", 2, 1)


def test_a_schema_version_in_quotes_is_another_one(problems):
    reads(problems("schema_version: '1'\nname: house\n"), "1: schema_version", 1)


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n"])
def test_an_empty_file_says_so(problems, text):
    reads(problems(text), 1)


@pytest.mark.parametrize(("text", "named"), [("- a\n- b\n", ""), ("house\n", "house")])
def test_a_file_without_keys_says_what_was_found(problems, text, named):
    reads(problems(text), 1, named)


def test_a_syntax_error_has_its_line(problems):
    (problem,) = problems(HEAD + "shapes: [1, 2\ncolour: red\n")
    assert problem.startswith("4: not YAML: ")


def test_a_second_document_is_refused(problems):
    (problem,) = problems(HEAD + "---\n" + HEAD)
    assert "not YAML: " in problem


def test_a_file_in_another_encoding_names_byte_and_line(problems):
    reads(problems(HEAD.encode() + b"colour: gr\xfcn\n"), 3, "UTF-8", "0xfc")


def test_a_control_character_is_refused(problems):
    (problem,) = problems(HEAD + "colour: \x00\n")
    assert problem.startswith("3: not YAML: ")


def test_aliases_are_refused_before_they_grow(problems):
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    reads(problems(bomb)[0], 2, "*a")


def test_nesting_has_a_limit(problems):
    reads(problems(HEAD + "a: " + "[" * 40 + "]" * 40), 3, 32)


def test_nesting_that_would_exhaust_the_stack_is_refused(problems):
    (problem,) = problems("a: " + "[" * 100_000)
    assert "nest" in problem


def test_tags_build_no_objects(problems):
    assert problems(HEAD + "colour: !!python/object/apply:os.system [ls]\n")
    reads(problems(HEAD + "colour: !paint red\n"), "3: colour", "!paint")


def test_a_missing_file_says_so(tmp_path):
    with raising(SpecError, "No such file"):
        load(tmp_path / "absent.yaml", Drawing)


def test_a_validator_of_several_keys_refuses_each_at_its_place(tmp_path):
    from pydantic import model_validator

    class Pair(Spec):
        first: int
        second: int

        @model_validator(mode="after")
        def _even(self) -> "Pair":
            values = {"first": self.first, "second": self.second}
            refuse(Problem(location=(key,), reason="must be even") for key, value in values.items() if value % 2)
            return self

    class Pairs(Spec):
        pairs: tuple[Pair, ...]

    path = write(tmp_path, "pairs:\n  - first: 1\n    second: 3\n  - {first: 2, second: 2}\n")
    with pytest.raises(SpecError) as caught:
        load(path, Pairs)
    reads(caught.value.problems, f"{path}:2: pairs[0].first", f"{path}:3: pairs[0].second")


@pytest.mark.parametrize("model", [Recipe, DeviceProfile, FarmFile, NightFile])
def test_what_a_text_is_like_is_told_in_words_and_never_as_a_pattern(model):
    assert "'pattern': '" not in repr(model.__pydantic_core_schema__)  # pydantic's own, which stands in errors as it is
    assert "pattern" in repr(model.model_json_schema())
