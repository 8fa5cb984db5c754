"""Writes docs/glossary.md from the words that reports explain: `python docs/glossary.py`."""

from __future__ import annotations

from pathlib import Path

from kraken_sim.report.glossary import GLOSSARY

PAGE = Path(__file__).parent / "glossary.md"

HEAD = """# Glossary

The words that reports explain at their end; this page is made of the same list (`kraken_sim/report/glossary.py`) by
`python docs/glossary.py`.

| word | meaning |
| --- | --- |
"""


def page() -> str:
    """The page as it should be."""
    words = sorted(GLOSSARY, key=str.casefold)
    return HEAD + "".join(f"| {word} | {GLOSSARY[word][1]} |\n" for word in words)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
