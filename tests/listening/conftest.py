"""Codes that are the same in every run of the tests."""

import secrets
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def salt() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_hex", lambda n: "5a" * n)
        yield
