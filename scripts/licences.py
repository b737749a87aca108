#!/usr/bin/env python3
"""Prints the licences of all crates that are linked into the binaries, from the crates' sources.

scripts/licences.py
"""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = ("license", "licence", "copying", "notice", "unlicense", "copyright")


def main():
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    command = [
        "cargo",
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform=x86_64-unknown-linux-gnu",
    ]
    metadata = json.loads(
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    )
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    # Linked crates: the normal dependencies, recursively. Dependencies of build scripts and tests
    # are not linked, and neither are procedural macros.
    linked, waiting = set(), [metadata["resolve"]["root"]]
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            package = packages[dependency["pkg"]]
            normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            macro = any("proc-macro" in target["kind"] for target in package["targets"])
            if normal and not macro and dependency["pkg"] not in linked:
                linked.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    print("Crates that are linked into bitfit, each with its licences.\n")
    for package in sorted((packages[id] for id in linked), key=lambda p: (p["name"], p["version"])):
        print("=" * 100)
        print(f"{package['name']} {package['version']}: {package['license'] or 'see below'}")
        print(package["repository"] or f"https://crates.io/crates/{package['name']}")
        folder = pathlib.Path(package["manifest_path"]).parent
        texts = sorted(
            path
            for path in folder.iterdir()
            if path.is_file() and path.name.lower().startswith(NAMES)
        )
        for path in texts:
            print(f"\n--- {path.name}\n")
            print(path.read_text(encoding="utf-8", errors="replace").rstrip())
        if not texts:
            print(
                "\nIts package holds no text; its authors: "
                f"{', '.join(package['authors']) or 'see there'}."
            )
        print()


main()
