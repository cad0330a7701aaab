"""What something was configured with, known without its constructor having to say so again."""

import inspect
from typing import Any, ClassVar, Self

from ttsadapt.files import digest


class Configured:
    """Remembers the arguments of its constructor, defaults included."""

    apart: ClassVar[frozenset[str]] = frozenset({"path", "limit"})
    """arguments that move no value: where a model lies, which is known by its content, and how many clips are scored"""

    def __new__(cls, *given: Any, **named: Any) -> Self:
        self = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(self, *given, **named)  # partial: a copy is made without arguments
        bound.apply_defaults()
        vars(self)["arguments"] = dict(list(bound.arguments.items())[1:])
        return self

    def __getnewargs__(self) -> tuple[()]:
        """A copy takes its arguments from the state."""
        return ()

    @property
    def settings(self) -> dict[str, str]:
        """What moves a value, as text: 50 and 50.0 are the same, lists are a digest."""
        return {name: _text(value) for name, value in vars(self)["arguments"].items() if name not in self.apart}


def _text(value: Any) -> str:
    if isinstance(value, Configured):
        return f"{type(value).__name__}({', '.join(f'{k}={v}' for k, v in value.settings.items())})"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.12g}"
    return str(value) if value is None or isinstance(value, str | bool) else digest(list(value), 8)
