"""The browser that opens pages, and the screens on which it does."""

import shutil
from typing import Any

CHROMIUM = shutil.which("chromium")

SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "phone": {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "has_touch": True, "is_mobile": True},
}
