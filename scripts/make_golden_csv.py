#!/usr/bin/env python3
"""Makes two golden files. csv.jsonl.gz holds 10,000 small CSV files and the rows that Python's csv
module (strict=True) reads from each. rows.csv.xz is a CSV in two streams, with padding between
them.

    python3 scripts/make_golden_csv.py        # Python 3.11 or later, nothing else

Each line of csv.jsonl.gz describes one file: [TEXT, ROWS, CRC]. ROWS is the number of rows after
the header, without blank lines. CRC is zlib's crc32 of the first cells of these rows, each followed
by a NUL. ROWS is -1 if Python rejects the file. ROWS is -2 if a row has more or fewer cells than
the header, which Python accepts. Some files are correct; others have errors in one or more places:
quotes that are not closed, are closed too early, are escaped by backslashes, or stand within a
cell; other line ends; cells of many lines.
"""

import csv, gzip, io, json, lzma, pathlib, random, zlib

draw = random.Random(19)
words = [
    "good",
    "bad",
    "a",
    "",
    " ",
    '5" nail',
    "it's",
    "caf\u00e9",
    "\u2028",
    "x;y",
    "tab\there",
    "back\\slash",
    "1",
    "-",
    "#",
]
# The contents of quoted cells, and text that makes a file invalid.
inside = words + ["one, two", "\n", "\r\n", '""', '""quoted""', ",", "two\nlines"]
wild = [
    '"',
    '""',
    '\\"',
    '"x',
    'x"',
    ",",
    "\n",
    "\r",
    "\r\n",
    ' "',
    '" ',
    "\\",
    '"\n',
    ',"',
    '",',
    "a",
]


def cell(wildness):
    if draw.random() < wildness:
        return "".join(draw.choice(wild) for _ in range(draw.randint(1, 4)))
    if draw.random() < 0.5:
        return draw.choice(words)
    return '"' + "".join(draw.choice(inside) for _ in range(draw.randint(0, 3))) + '"'


def file():
    wildness = draw.choice([0, 0, 0.02, 0.1, 0.4])
    end = draw.choice(["\n", "\n", "\r\n", "\r"])
    header = draw.choice(["text,label", '"text","label"', "text,label,more", "text"])
    columns = header.count(",") + 1
    lines = [draw.choice(["", "", "", "\n"]) + header]
    for _ in range(draw.randint(1, 7)):
        width = columns if draw.random() > wildness / 2 else draw.randint(1, 4)
        lines.append(",".join(cell(wildness) for _ in range(width)))
        if draw.random() < 0.05:
            lines.append("")
    return end.join(lines) + draw.choice([end, end, ""])


def verdict(text):
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error:
        return -1, 0
    header, *rows = rows
    if any(len(row) != len(header) for row in rows):
        return -2, 0
    return len(rows), zlib.crc32("".join(row[0] + "\0" for row in rows).encode())


lines = []
while len(lines) < 10_000:
    text = file()
    lines.append(json.dumps([text, *verdict(text)], ensure_ascii=False, separators=(",", ":")))
counts = [json.loads(line)[1] for line in lines]
print(f"{sum(c >= 0 for c in counts)} read, {counts.count(-1)} refused, {counts.count(-2)} ragged")
golden = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"
(golden / "csv.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode() + b"\n", 9, mtime=0))
parts = [b'text,label\n"a warm, funny film",1\n', b"dull,0\n"]
(golden / "rows.csv.xz").write_bytes(bytes(4).join(lzma.compress(part, preset=9) for part in parts))
