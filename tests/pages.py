"""README and docs as tests read them: their code, their shell lines and their links."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
# tables that a command makes, of names that are no options
_TABLES = {"benchmark-tables.md", "development-tables.md", "settings-tables.md", "unseen-tables.md"}
PAGES = [README, *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in _TABLES)]


def blocks(page, language):
    """The code blocks of a page in a language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.S | re.M)


def commands(page):
    """The lines of a page's shell blocks, as words; what continues a line is part of it."""
    joined = "".join(blocks(page, "sh")).replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def ours(words):
    """What a shell line calls of clear-peft, as words: none, or one call for each part of the line."""
    starts = [
        i for i, word in enumerate(words) if re.fullmatch(r"(.*/)?clear-peft|\$\(which clear-peft\)", word)
    ]
    ends = [i for i, word in enumerate(words) if word in ("&&", "|", ";", ">")] + [len(words)]
    return [words[i + 1 : next(end for end in ends if end > i)] for i in starts]


def links(page):
    """The relative links of a page."""
    found = re.findall(
        r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"",
        re.sub(r"```.*?```", "", page.read_text(), flags=re.S),
    )
    return [link for pair in found for link in pair if link and not re.match(r"[a-z]+:", link)]


def anchors(page):
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
