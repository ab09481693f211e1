"""Errors: each code names one class, each class says who is at fault and what to do; the page lists them all."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter

import pytest

from attestation import errors
from attestation.errors import AttestationError
from tests.attestation.tools.error_table import PAGE, error_classes, page_with_table


def test_every_class_is_exported() -> None:
    defined = {
        name
        for module in pkgutil.iter_modules(errors.__path__)
        for name, value in vars(importlib.import_module(f"attestation.errors.{module.name}")).items()
        if isinstance(value, type) and issubclass(value, AttestationError)
    }
    assert defined <= set(errors.__all__)


def test_a_code_names_one_class() -> None:
    assert [code for code, count in Counter(each.code for each in error_classes()).items() if count > 1] == []


@pytest.mark.parametrize("error", list(error_classes()), ids=lambda error: error.__name__)
def test_a_class_says_who_is_at_fault_and_what_to_do(error: type[AttestationError]) -> None:
    assert error.__doc__
    assert error.fault in ("sender", "collateral", "platform", "policy", "local", "service")
    assert len(error.remedy) > 4
    assert "\n" not in error.remedy
    branches = [base for base in error.__mro__ if issubclass(base, AttestationError)]
    assert len({base.fault for base in branches[:-1]}) <= 1, "a class is at fault as its branch is"


def test_the_page_lists_them() -> None:
    page = PAGE.read_text()
    assert page_with_table(page) == page, "run: python -m tests.attestation.tools.error_table"
