"""A page of numbers, and one text, that one process writes and others on the same machine see at once."""

from __future__ import annotations

from typing import Protocol


class SeenPage(Protocol):
    """text_number: changes whenever the text does."""

    @property
    def text_number(self) -> int: ...
    def get(self, place: int) -> int:
        """The number at this place, 0 at first; what the writer set last, never half of it."""
        ...

    def text(self) -> tuple[int, bytes] | None:
        """The text and its number; None while it is being replaced."""
        ...


class ShownPage(SeenPage, Protocol):
    """The writer's side. A number is changed by one thread at a time, the text by any."""

    def set(self, place: int, value: int) -> None: ...
    def add(self, place: int, value: int = 1) -> None: ...
    def set_text(self, text: bytes) -> None: ...
