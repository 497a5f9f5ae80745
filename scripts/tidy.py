#!/usr/bin/env python3
"""tidy.py: what docs/ARCHITECTURE.md and the house style promise about the source, as checks.

Goal: a broken layer, a stray `unsafe` or a dead link is found by a program, not by a reader.
Method: every check is a function over the files of the checkout (git's list, new files included). Rust is
looked at with comments and literals blanked out, and, where a rule is for the product only, without tests.
Does not: judge what rustfmt, clippy or rustdoc judge.

Usage: scripts/tidy.py    prints FILE:LINE: WHAT for each offence; exit status 1 if there is any
"""

import re
import subprocess
import sys
from pathlib import Path

RS_LINES_MAX = 500
COLUMNS_MAX = {".rs": 120, ".sh": 120, ".py": 120}
UNSAFE_HOMES = ("engine/src/sys/", "bench/src/sys/", "tools/accel/src/interpose/")

# FOLDER: what its product code must not name, and why.
LAYERS = {
    "engine/": {r"\bfanq_(tools|bench)\b": "the engine depends on neither tools nor bench"},
    "engine/src/nfq/": {
        r"\bstd::(os|net|io|fs|thread|process|sync)\b": "the codec is pure bytes",
        r"\b(RawFd|OwnedFd|BorrowedFd|AsFd|AsRawFd|Socket|netlink_sys|mio)\b": "the codec knows no descriptor",
        r"\b(Vec|Box|String|Rc|Arc)\b|\b(vec|format)!|\.(to_vec|to_owned|to_string|collect)\(":
            "the codec allocates nothing",
        r"\bcrate::(?!nfq\b)": "the codec depends on nothing else of the engine",
    },
    "engine/src/wire/": {
        r"\bstd::(os|net|io|fs|thread|process|sync)\b": "rewriting is pure bytes",
        r"\b(RawFd|OwnedFd|BorrowedFd|AsFd|AsRawFd|Socket|netlink_sys|mio)\b": "rewriting knows no descriptor",
        r"\b(Vec|Box|String|Rc|Arc)\b|\b(vec|format)!|\.(to_vec|to_owned|to_string|collect)\(":
            "rewriting allocates nothing",
        r"\bcrate::(?!wire\b|nfq::SkbInfo\b)": "rewriting knows of the engine only what the kernel says of checksums",
    },
    "engine/src/sys/": {
        r"\bcrate::(engine|start|worker|queue|verdicts|stats|inspect|placement|kernel_table)\b":
            "sys depends on nothing above it",
    },
    "engine/src/worker": {r"\bcrate::(engine|start)\b": "a worker knows nothing of the engine around it"},
    "engine/src/verdicts": {r"\bcrate::(engine|start|worker|queue|sys)\b": "the coalescer works without the engine"},
}
# Put together here, so that this file does not offend.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b|\b(to" r"do|unimple" r"mented)!")


def main():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], check=True, stdout=subprocess.PIPE)
    names = [name for name in listed.stdout.decode().split("\0") if name and Path(name).is_file()]
    files = {name: Path(name).read_text() for name in sorted(names)
             if Path(name).suffix in (".rs", ".sh", ".py", ".md", ".toml")}
    offences = [offence for check in CHECKS for offence in check(files)]
    for name, line, what in sorted(set(offences)):
        print(f"{name}:{line}: {what}")
    print(f"tidy: {len(CHECKS)} checks over {len(files)} files, {len(set(offences))} offences")
    return 1 if offences or not files else 0


def shape(files):
    """Files and lines stay short (a message stays whole), and a Rust file begins with what it is for."""
    for name, text in files.items():
        lines = text.splitlines()
        columns = COLUMNS_MAX.get(Path(name).suffix)
        for number, line in enumerate(lines, 1):
            if columns and len(line) > columns and not ONE_LITERAL.match(line):
                yield name, number, f"{len(line)} columns, more than {columns}"
        if name.endswith(".rs"):
            if len(lines) > RS_LINES_MAX:
                yield name, len(lines), f"{len(lines)} lines, more than {RS_LINES_MAX}"
            if not text.startswith("//!"):
                yield name, 1, "does not begin with //!"


def unsafe_at_home(files):
    for name, code in rust(files).items():
        if not name.startswith(UNSAFE_HOMES):
            yield from matches(name, code, r"\bunsafe\b", f"unsafe outside {', '.join(UNSAFE_HOMES)}")


def layers(files):
    for name, code in product(files).items():
        for folder, forbidden in LAYERS.items():
            for pattern, why in forbidden.items() if name.startswith(folder) else ():
                yield from matches(name, code, pattern, why)
    manifest = files.get("engine/Cargo.toml", "")
    yield from matches("engine/Cargo.toml", manifest, r"\bfanq-(tools|bench)\b", "the engine depends on neither")


def no_unwrap(files):
    for name, code in product(files).items():
        yield from matches(name, code, r"\.unwrap\(\)", "unwrap outside tests: say with `expect` why it holds")


def nothing_unfinished(files):
    for name, text in files.items():
        if not name.endswith(".md"):
            yield from matches(name, text, UNFINISHED, "unfinished: finish it, or open an issue")


def proofs_exist(files):
    """A test or script which docs/SPECIFICATION.md names is there."""
    text = files.get("docs/SPECIFICATION.md", "")
    for found in re.finditer(r"[\w./-]+\.(?:rs|sh|py|c)\b", text):
        path = found.group().removeprefix("../")
        if not Path(path).exists() and not Path("docs", found.group()).exists():
            yield "docs/SPECIFICATION.md", line_of(text, found.start()), f"names {path}, which is not there"
    # Tests of `accel` are named by a macro, so a name counts wherever Rust has it.
    known = set(re.findall(r"\w+", "".join(text for name, text in files.items() if name.endswith(".rs"))))
    for found in re.finditer(r"`([a-z]\w*(?:_\w+){3,})`", text):
        if found.group(1) not in known:
            yield "docs/SPECIFICATION.md", line_of(text, found.start()), f"names {found.group(1)}, which is no test"


def links_lead_somewhere(files):
    for name, text in files.items():
        prose = re.sub(r"```.*?```|`[^`\n]*`", blank, text, flags=re.DOTALL) if name.endswith(".md") else ""
        for found in re.finditer(r"\]\(<?([^)\s>]+)", prose):
            path = found.group(1).split("#")[0]
            if path and not re.match(r"[a-z+]+:", path) and not (Path(name).parent / path).exists():
                yield name, line_of(text, found.start()), f"links to {path}, which is not there"


CHECKS = [shape, unsafe_at_home, layers, no_unwrap, nothing_unfinished, proofs_exist, links_lead_somewhere]


def matches(name, text, pattern, what):
    for found in re.finditer(pattern, text):
        yield name, line_of(text, found.start()), f"`{found.group().strip()}`: {what}"


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def rust(files):
    """The Rust files, with what is no code blanked out."""
    return {name: LITERAL.sub(blank, text) for name, text in files.items() if name.endswith(".rs")}


def product(files):
    """As `rust`, without tests: folders of tests, modules and items under #[cfg(test)]."""
    code = rust(files)
    of_tests = {path for name in code for path in test_modules(name, code[name])}
    return {name: TEST_ITEM.sub(blank, text) for name, text in code.items()
            if "/tests/" not in name and not name.startswith(tuple(of_tests))}


def test_modules(name, code):
    """The files of `#[cfg(test)] mod x;`, as beginnings of their paths."""
    path = Path(name)
    folder = path.parent if path.stem in ("mod", "lib", "main") else path.with_suffix("")
    for found in re.finditer(r"#\[cfg\(test\)\]\s*(?:pub(?:\([a-z]+\))? )?mod (\w+);", code):
        yield f"{folder}/{found.group(1)}.rs"
        yield f"{folder}/{found.group(1)}/"


def blank(found):
    return re.sub(r"[^\n]", " ", found.group())


# Comments, strings (raw ones too) and character literals; a lifetime is none.
LITERAL = re.compile(
    r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?' r"'(?:\\(?:x..|u\{[^}]*\}|.)|[^'\\])'", re.DOTALL)
# A line that is nothing but a message.
ONE_LITERAL = re.compile(r'\s*"(?:\\.|[^"\\])*",?$')
# rustfmt puts the closing brace of an item below its attribute.
TEST_ITEM = re.compile(
    r"^( *)#\[cfg\(test\)\]\n(?: *#\[[^\n]*\n)*(?:[^\n]*;\n|[^\n]*\n(?:.*?\n)??\1\}[^\n]*)", re.DOTALL | re.MULTILINE)

if __name__ == "__main__":
    sys.exit(main())
