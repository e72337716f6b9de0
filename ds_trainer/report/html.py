"""Pages written from the templates beside this module."""

from pathlib import Path
from typing import Any

import jinja2

from ds_trainer.files import write_atomically


def write_html(path: Path, template: str, **values: Any) -> None:
    """Write the page that `template` makes of `values`, all of which are escaped but for what is `Markup` already."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ds_trainer.report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["shown"] = lambda value: f"{value:.4g}" if isinstance(value, float) else value
    text = environment.get_template(template).render(values)
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))
