"""Links between the pages lead somewhere: to files that exist, and to headings that stand there."""

import re
from pathlib import Path

import pytest
from launching import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("ds_configs/**/README.md")])


def anchors_of(page: Path) -> set[str]:
    """What GitHub calls its headings."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^]]+\]: (\S+)$", text, re.MULTILINE)
    dead = []
    for target in targets:
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        is_local = not path.startswith("http")
        if is_local and (not file.exists() or (anchor and anchor not in anchors_of(file))):
            dead.append(target)
    return dead


def names_without_a_link(page: Path) -> set[str]:
    """Tests that a table names in brackets and that nothing below links."""
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"\[(test_\w+)\](?![:(])", text)
    return set(named) - set(re.findall(r"^\[([^]]+)\]: ", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_the_page_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []
    assert names_without_a_link(page) == set()


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One, two\n\n[a](#one-two) [b](page.md#three) [c](gone.md) [d](https://x.org)\n[test_e] [test_f]\n"
    )
    with page.open("a") as file:
        file.write("\n[test_f]: gone.py\n")
    assert dead_links(page) == ["page.md#three", "gone.md", "gone.py"]
    assert names_without_a_link(page) == {"test_e"}
