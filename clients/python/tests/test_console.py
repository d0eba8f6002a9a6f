"""What the command line says, without a relay."""

from __future__ import annotations

import pytest

from sealpost.cli import main
from sealpost.console import printable


@pytest.mark.parametrize("arguments", [(), ("listen",), ("send",), ("chat",)])
def test_the_help_says_that_text_is_not_encrypted(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    output = capsys.readouterr().out
    assert ended.value.code == 0
    assert "NOT encrypted" in output
    assert "Exit status: 0 done" in output


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("hello", "hello"),
        ("a\tb", "a\tb"),
        ("über 😀", "über 😀"),
        ("\x1b[2J\x07\r", "\ufffd[2J\ufffd\ufffd"),
        ("one\neve: two", "one\n    eve: two"),
        ("\u202eoverride", "\ufffdoverride"),
    ],
)
def test_text_of_others_does_no_harm_to_a_terminal(text: str, printed: str) -> None:
    assert printable(text) == printed
