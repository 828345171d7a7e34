"""Help of the commands that fits its terminal, examples included."""

from __future__ import annotations

import argparse
import textwrap


class HelpFormatter(argparse.HelpFormatter):
    """Wrap the paragraphs of descriptions, and leave those with indented lines, such as examples, as they stand.

    >>> parser = argparse.ArgumentParser(
    ...     prog="pad",
    ...     usage="pad",
    ...     add_help=False,
    ...     description="One paragraph of some words.\\n\\nThe next.",
    ...     epilog="examples:\\n  pad these --to 8",
    ...     formatter_class=lambda prog: HelpFormatter(prog, width=20),
    ... )
    >>> print(parser.format_help())
    usage: pad
    <BLANKLINE>
    One paragraph of
    some words.
    <BLANKLINE>
    The next.
    <BLANKLINE>
    examples:
      pad these --to 8
    <BLANKLINE>
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(
            textwrap.indent(paragraph, indent)
            if "\n " in paragraph
            else textwrap.fill(paragraph, width, initial_indent=indent, subsequent_indent=indent)
            for paragraph in paragraphs
        )
