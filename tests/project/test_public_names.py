"""Every public name has a docstring that names its arguments and shows an example, and a package fits on a screen."""

import doctest
import importlib
import inspect
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import pytest

from multimodal_pad import position_count
from multimodal_pad.layouts.layout import Layout
from multimodal_pad.scheduling.policy import Grouping

griffe = pytest.importorskip("griffe")  # reads the sections of docstrings

PACKAGES = [
    "multimodal_pad",
    "multimodal_pad.batching.streams",
    "multimodal_pad.compiling",
    "multimodal_pad.models",
    "multimodal_pad.serving",
    "multimodal_pad.sources",
    "multimodal_pad.training",
]
MODULES = ["multimodal_pad.errors", *(["multimodal_pad.grain"] if find_spec("grain") else [])]
"""Without ``__all__``: the classes that they define are public."""

SCREEN = 40
"""Lines of a screen, a name on each."""

NOT_RUN = ["multimodal_pad.sources.tfds"]
"""Whose examples need a dataset that no few lines prepare."""


def public_names():
    """Every public function and class by its path. An alias of a type has no docstring."""
    found = {f"{thing.__module__}.{thing.__name__}": thing for thing in (Layout, Grouping)}
    for package in PACKAGES:
        module = importlib.import_module(package)
        found |= {f"{package}.{name}": getattr(module, name) for name in module.__all__}
    for name in MODULES:
        classes = inspect.getmembers(importlib.import_module(name), inspect.isclass)
        found |= {f"{name}.{key}": value for key, value in classes if value.__module__ == name and key[0] != "_"}
    return {path: thing for path, thing in found.items() if inspect.isclass(thing) or inspect.isfunction(thing)}


PUBLIC = public_names()


def arguments(thing):
    """What a docstring is to name: parameters or fields, or what an interface declares where it is made by no call."""
    if not inspect.isclass(thing):
        return list(inspect.signature(thing).parameters)
    if issubclass(thing, tuple):
        return list(thing._fields)
    if Protocol in thing.__bases__:
        return [name for name, value in vars(thing).items() if isinstance(value, property)]
    if inspect.isfunction(thing.__init__):
        return list(inspect.signature(thing.__init__).parameters)[1:]
    return [name for name in inspect.get_annotations(thing) if name[0] != "_"]


def examples(thing):
    return doctest.DocTestParser().get_examples(thing.__doc__ or "")


def faults(thing):
    """What the docstring of a function or class lacks."""
    if not thing.__doc__:
        return ["a docstring"]
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        return []
    sections = griffe.parse_google(griffe.Docstring(inspect.cleandoc(thing.__doc__)), warnings=False)
    lists = [section.value for section in sections if section.kind.value in ("parameters", "attributes")]
    named = {item.name for items in lists for item in items}
    return [*(name for name in arguments(thing) if name not in named), *([] if examples(thing) else ["an example"])]


@pytest.mark.parametrize("path", PUBLIC)
def test_a_public_name_has_arguments_and_an_example(path):
    assert faults(PUBLIC[path]) == []


def test_all_examples_run_but_these():
    skipped = [path for path, thing in PUBLIC.items() if any(doctest.SKIP in x.options for x in examples(thing))]
    assert skipped == NOT_RUN


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_fits_on_a_screen(package):
    names = importlib.import_module(package).__all__
    assert len(set(names)) == len(names) <= SCREEN


# The first test above can fail:


def undocumented(lengths):
    return lengths


def documented_in_part(lengths, *rest, **options):
    """Count.

    Args:
        lengths: whole numbers.
        rest: the same.
        option: not the name that it has.
    """


class Made:
    """A class.

    Attributes:
        found: later, and no argument.

    >>> 1 + 1
    2
    """

    def __init__(self, source):
        self.found = source


@dataclass
class Kept:
    """A dataclass. Attributes: in a line, which is no section."""

    source: int


class Pair(NamedTuple):
    """A tuple.

    Attributes:
        first: of two.
    """

    first: int
    second: int


class Interface(Protocol):
    """What others have."""

    @property
    def size(self): ...


class UnexplainedError(ValueError):
    pass


@pytest.mark.parametrize(
    ("thing", "lacking"),
    [
        (undocumented, ["a docstring"]),
        (documented_in_part, ["options", "an example"]),
        (Made, ["source"]),
        (Kept, ["source", "an example"]),
        (Pair, ["second", "an example"]),
        (Interface, ["size", "an example"]),
        (UnexplainedError, ["a docstring"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_documented_is_found(thing, lacking):
    assert faults(thing) == lacking


def test_an_example_or_argument_that_goes_is_missed(monkeypatch):
    text = position_count.__doc__
    monkeypatch.setattr(position_count, "__doc__", text.replace(">>>", "..."))
    assert faults(position_count) == ["an example"]
    monkeypatch.setattr(position_count, "__doc__", text.replace("lengths:", "length:"))
    assert faults(position_count) == ["lengths"]
