"""Makes names from a file system or a file safe to print in a terminal, a log or a picture.

A file name may contain any byte except a slash and a zero byte. For example, it may contain a line break that fakes a
line of a log, an escape sequence that clears the screen, or bytes that are not text.
"""

from __future__ import annotations

import os


def show_name(name: str | os.PathLike[str]) -> str:
    r"""Return a name, or a text that quotes names, as one printable line.

    Args:
        name: the text. Bytes that are not valid text must appear in it as the surrogate characters that Python's file
            functions return for them.

    Returns:
        The text, in which an escape replaces every character that cannot be printed, such as `\n`, `\x1b`, `\u202e`,
        and `\xff` for a byte that is not text.

    Examples:
        >>> show_name("a b/c.png"), show_name("two\nlines"), show_name("\x1b[31m.png")
        ('a b/c.png', 'two\\nlines', '\\x1b[31m.png')
    """
    return "".join(each if each.isprintable() else _escape(each) for each in os.fspath(name))


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is not text
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def format_count(count: int, noun: str, plural: str = "") -> str:
    """Return a number and a noun, such as "1 image" or "20 images".

    Args:
        count: the number.
        noun: the noun in the singular.
        plural: the noun in the plural. Empty: the singular with an "s".

    Examples:
        >>> format_count(1, "image"), format_count(20, "image")
        ('1 image', '20 images')
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def format_none(count: int, noun: str) -> str:
    """Return the subject of a sentence about `count` things that all failed.

    Examples:
        >>> format_none(1, "image"), format_none(20, "image")
        ('No image', 'None of the 20 images')
    """
    return f"No {noun}" if count == 1 else f"None of the {format_count(count, noun)}"


class OneLineError(Exception):
    """An error whose message is always printable, even if it quotes a name or what a library says about a file."""

    def __init__(self, *lines: object) -> None:
        """Take the message, one argument for each line. Most messages have one line."""
        super().__init__("\n".join(show_name(str(line)) for line in lines))
