"""The looks in which every page must be good: light and dark, on a desk and on a phone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal


@dataclass(frozen=True, slots=True)
class Look:
    """A colour scheme and the size of a window, in CSS pixels."""

    name: str
    scheme: Literal["light", "dark"]
    width: int
    height: int

    @property
    def options(self) -> dict[str, Any]:
        """What a browser context of this look is made with; nothing moves, so that pictures are equal."""
        return {
            "color_scheme": self.scheme,
            "viewport": {"width": self.width, "height": self.height},
            "reduced_motion": "reduce",
        }


LIGHT: Final = Look("light", "light", 1280, 800)
DARK: Final = Look("dark", "dark", 1280, 800)
PHONE: Final = Look("phone", "light", 360, 740)
PHONE_DARK: Final = Look("phone-dark", "dark", 360, 740)
LOOKS: Final = (LIGHT, DARK, PHONE, PHONE_DARK)
