#!/usr/bin/env python3
"""Draws docs/quickstart.svg: a terminal with a training run on the movie reviews, half way through,
and a prediction after it.

    pip install pyte rich
    scripts/quickstart.sh && python3 scripts/screenshot.py

The picture shows only what the programs printed.
"""

import io
import itertools
import os
import pty
import re
import subprocess
import sys

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

WIDTH, HEIGHT, HALF_WAY = 132, 40, "step 750"
TRAIN = "bitfit-train --config configs/movie-reviews.toml --overwrite"
PREDICT = 'bitfit predict --run runs/movie-reviews "A warm, funny and beautifully acted film."'


def screens(command):
    """Yields the terminal's screen after each piece of a command's output."""
    inside, outside = pty.openpty()
    subprocess.run(["stty", "rows", str(HEIGHT), "cols", str(WIDTH)], stdin=outside, check=True)
    environment = {
        **os.environ,
        "PATH": f"{os.getcwd()}/target/release:{os.environ['PATH']}",
        "TERM": "xterm-256color",
    }
    child = subprocess.Popen(
        ["bash", "-c", command], stdin=outside, stdout=outside, stderr=outside, env=environment
    )
    os.close(outside)
    screen = pyte.Screen(WIDTH, HEIGHT)
    stream = pyte.ByteStream(screen)
    while True:
        try:
            stream.feed(os.read(inside, 1 << 16))
        except OSError:  # On Linux, this means that the other end is closed.
            break
        yield screen
    if child.wait():
        sys.exit(f"{command}: {child.returncode}\n" + "\n".join(screen.display))


def colour_of(cell):
    if re.fullmatch("[0-9a-f]{6}", cell.fg):
        return f"#{cell.fg}"
    return {"default": None, "brown": "yellow"}.get(cell.fg, cell.fg)


def lines(screen):
    """Returns the screen's lines with their colours."""
    found = []
    for row in range(HEIGHT):
        line = Text()
        cells = (screen.buffer[row][column] for column in range(WIDTH))
        for (colour, bold), same in itertools.groupby(
            cells, lambda cell: (colour_of(cell), cell.bold)
        ):
            line.append("".join(cell.data for cell in same), Style(color=colour, bold=bold))
        line.rstrip()
        found.append(line)
    while found and not found[-1]:
        found.pop()
    return found


half_way = None
for screen in screens(TRAIN):
    if (
        half_way is None
        and any(HALF_WAY in line for line in screen.display)
        and any("left" in line for line in screen.display)
    ):
        half_way = lines(screen)
for screen in screens(PREDICT):
    predicted = lines(screen)

console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
prompt = Text.assemble(("$ ", "green"))
for line in [
    Text.assemble(prompt, TRAIN),
    *half_way,
    Text("..."),
    Text.assemble(prompt, PREDICT),
    *predicted,
]:
    console.print(line, soft_wrap=True)
drawing = console.export_svg(title="bitfit")
# A picture in a repository cannot load fonts, so use the reader's monospaced font.
drawing = re.sub(r"@font-face \{.*?\}", "", drawing, flags=re.S).replace(
    "Fira Code, monospace", "Fira Code, DejaVu Sans Mono, Menlo, Consolas, monospace"
)
with open("docs/quickstart.svg", "w", encoding="utf-8") as file:
    file.write(drawing)
