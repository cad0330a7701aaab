import ast

import pytest

from ttsadapt.config.signatures import Module
from ttsadapt.config.values import accepts, is_plain, spelt

MODULE = Module("ttsadapt.mine", {"Share": ast.parse("Share = Annotated[float, '>= 0 and < 1']").body[0]}, {"Tensor": "torch.Tensor"})

FITS = [
    ("int", 3),
    ("float", 3),
    ("float", 0.5),
    ("bool", True),
    ("str", "a"),
    ("Path", "a/b"),
    ("Any", {"a": 1}),
    ("int | None", None),
    ("Optional[int]", None),
    ("Union[int, str]", "a"),
    ("'int | None'", 4),
    ("list[int]", [1, 2]),
    ("Sequence[str]", []),
    ("tuple[int, ...]", [1, 2, 3]),
    ("tuple[float, float]", [0.9, 1]),
    ("dict[str, float]", {"a": 1}),
    ("dict[str, dict[str, int]]", {"a": {"b": 1}}),
    ("Literal['auto', 3]", 3),
    ("Annotated[int, '> 0']", 1),
    ("Share", 0.99),
    ("float | Tensor", 0.1),
    ("Tensor", {"_target_": "torch.zeros"}),
    ("Callable[[int], int]", "anything"),
]
DOES_NOT_FIT = [
    ("int", 3.5),
    ("int", True),
    ("int", "3"),
    ("float", "1e-3x"),
    ("float", False),
    ("bool", 1),
    ("str", 3),
    ("Path", 3),
    ("int", None),
    ("int | None", "none"),
    ("Union[int, str]", [1]),
    ("list[int]", 3),
    ("list[int]", [1, "a"]),
    ("tuple[float, float]", [0.9]),
    ("tuple[int, ...]", [1, None]),
    ("dict[str, float]", {"a": "b"}),
    ("dict[str, float]", [1]),
    ("Literal['auto', 3]", "3"),
    ("Literal[1]", True),
    ("Annotated[int, '> 0']", 0),
    ("Share", 1.0),
    ("float | Tensor", "abc"),
]


def parsed(text):
    return ast.parse(text, mode="eval").body


@pytest.mark.parametrize(("annotation", "value"), FITS)
def test_what_fits(annotation, value):
    assert accepts(value, parsed(annotation), MODULE)


@pytest.mark.parametrize(("annotation", "value"), DOES_NOT_FIT)
def test_what_does_not(annotation, value):
    assert not accepts(value, parsed(annotation), MODULE)


def test_only_what_a_yaml_cannot_give_may_come_at_run_time():
    assert is_plain(parsed("int | None"), MODULE)
    assert is_plain(parsed("Share"), MODULE)
    assert not is_plain(parsed("Tensor"), MODULE)
    assert not is_plain(parsed("Callable[[int], int]"), MODULE)


def test_annotations_are_spelt_for_people():
    assert spelt(parsed("Share | None"), MODULE) == "float >= 0 and < 1 or null"
    assert spelt(parsed("Literal['target', 'source']"), MODULE) == "target or source"
