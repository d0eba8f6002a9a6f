"""Each block of code of the README runs."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

import sealpost
from tests.support.relay_process import RelayProcess

PACKAGE = Path(__file__).parents[2]
README = (PACKAGE / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
#: What each block prints, in their order.
PRINTED = [
    r"[0-9a-f-]{36}: hello\nprocessed\n",
    r"kept [0-9a-f-]{36}\n",
    r"asked by [0-9a-f-]{36} with alices public key\nnew key epoch-2\n",
    r"connecting  None\nonline  None\nonline 0 [0-9a-f-]{36}\nclosed the device was ended None\n",
    r'\{"event": "message", "from": "[0-9a-f-]{36}", "id": "[0-9a-f-]{36}", "text": "hello\\n"\}\n',
]


def test_each_block_is_known() -> None:
    assert len(BLOCKS) == len(PRINTED)


@pytest.mark.parametrize("number", range(len(PRINTED)))
async def test_a_block_runs(relay: RelayProcess, tmp_path: Path, number: int) -> None:
    language, code = BLOCKS[number]
    code = code.replace("ws://127.0.0.1:8080/ws", relay.url)
    command = {"python": (sys.executable, "-W", "error", "-c"), "sh": ("sh", "-e", "-c")}[language]
    process = await asyncio.create_subprocess_exec(
        *command,
        code,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(sealpost.__file__).parents[1]),
            # The block says `python`, and means the one that runs this test.
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert re.fullmatch(PRINTED[number], output.decode()), output.decode()
