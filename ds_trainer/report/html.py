"""Pages written from the templates beside this module."""

from pathlib import Path
from typing import Any

import jinja2

from ds_trainer.files import write_text


def shown(value: Any) -> str:
    """A value in a table: four digits of a number with a fraction, `-` where there is none."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_html(path: Path, template: str, **values: Any) -> None:
    """Write the page that `template` makes of `values`, all of which are escaped but for what is `Markup` already."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ds_trainer.report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["shown"] = shown
    write_text(path, environment.get_template(template).render(values))
