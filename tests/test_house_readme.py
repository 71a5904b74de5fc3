"""What README.md shows is what a reader gets: its commands are run and its modules dropped in.

A `sh` block that holds `curl` is run against a house with the built-in provider and the strict stand-ins.
When the next block is `json` or `text`, with no heading between, it is what the command prints; `...` in it
stands for anything, and blanks do not count in JSON. A `python` block that begins with `# providers/NAME.py`
or `# plugins/NAME.py` is dropped into a copy of the folder, and the house is brought up with it.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import List, NamedTuple, Optional

import pytest

from conftest import ROOT, clean_environment

README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STARTS_A_HOUSE = re.compile(r"^(git |cd |python3 llmproxy\.py( -.*)?( &)?$).*\n?", re.MULTILINE)
KEYS = {"openai": "sk-test", "anthropic": "sk-ant-test", "gemini": "test-key", "voyage": "pa-test"}


class Block(NamedTuple):
    """A fenced block of the README."""

    line: int
    language: str
    text: str
    follows: str  # what stands between it and the block before


def blocks(text: str) -> List[Block]:
    out, end = [], 0
    for match in FENCE.finditer(text):
        between = text[end : match.start()]
        out.append(Block(text.count("\n", 0, match.start()) + 1, match.group(1), match.group(2), between))
        end = match.end()
    return out


def answer_of(at: int, all_: List[Block]) -> Optional[Block]:
    """Give the block that says what a command prints, if the next one does."""
    if at + 1 < len(all_) and all_[at + 1].language in ("json", "text") and "\n#" not in all_[at + 1].follows:
        return all_[at + 1]
    return None


def fits(expected: Block, printed: str) -> bool:
    """Tell whether a command printed what the README says."""
    if expected.language == "json":
        wanted, got = ("".join(text.split()) for text in (expected.text, printed))
    else:
        wanted, got = (
            "\n".join(line.rstrip() for line in text.strip().splitlines()) for text in (expected.text, printed)
        )
    pattern = ".*?".join(re.escape(piece) for piece in wanted.split("..."))
    return re.fullmatch(pattern, got, re.DOTALL) is not None


def stand_ins(upstream) -> str:
    """Bring up every strict stand-in there is, and give the settings that lead to them."""
    ini = []
    for path in sorted(Path(__file__).parent.glob("strict/[!_]*.py")):
        if (ROOT / "providers" / path.name).exists():
            answer = importlib.import_module(f"strict.{path.stem}").answer
            ini += [f"[providers.{path.stem}]", f"base_url = {upstream(answer).url}"]
            ini += [f"api_key = {KEYS[path.stem]}"] if path.stem in KEYS else []
    return "\n".join(ini)


def run(block: Block, url: str, folder: Path) -> str:
    """Run a block's commands against the house at `url`."""
    script = STARTS_A_HOUSE.sub("", block.text)
    script = re.sub(r"http://(127\.0\.0\.1|localhost):3500", url, script)
    env = {**clean_environment(folder), "JWT_SECRET": "only-for-this-test-only-for-this"}
    done = subprocess.run(
        ["sh", "-ec", script],
        cwd=str(ROOT),
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"README.md:{block.line}: exit {done.returncode}\n{done.stderr.decode()}"
    return done.stdout.decode("utf-8")


@pytest.fixture
def readme() -> List[Block]:
    return blocks(README.read_text("utf-8"))


def test_every_curl_of_the_readme_prints_what_it_says(readme, house, upstream, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")
    up = house(stand_ins(upstream) + "\n[plugins.execute]\n")
    url, missing = up.url, up.ask("GET", "/execute").json["missing"]
    wrong = []
    shown = [(at, block) for at, block in enumerate(readme) if block.language == "sh" and "curl " in block.text]
    assert shown, "the README shows no request at all"
    if missing:
        shown = [(at, block) for at, block in shown if "/execute" not in block.text]
    for at, block in shown:
        printed = run(block, url, tmp_path)
        expected = answer_of(at, readme)
        if expected and not fits(expected, printed):
            wrong.append(f"README.md:{expected.line} says\n{expected.text}and the command printed\n{printed}")
        elif not expected and '"error"' in printed:
            wrong.append(f"README.md:{block.line} is refused:\n{printed}")
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)
    if missing:
        pytest.skip(f"no program can be run here, not even the README's: {missing}")


def test_every_module_of_the_readme_can_be_dropped_in(readme, house, tmp_path):
    dropped = []
    for floor in ("providers", "plugins"):
        shutil.copytree(ROOT / floor, tmp_path / floor, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "llmproxy.py", tmp_path)
    for block in readme:
        match = re.match(r"# (providers|plugins)/(\w+)\.py\b", block.text)
        if block.language == "python" and match:
            (tmp_path / match.group(1) / f"{match.group(2)}.py").write_text(block.text, "utf-8")
            dropped.append((match.group(1), match.group(2)))
    assert "providers" in dict(dropped), "the README shows no provider"
    up = house("", program=tmp_path / "llmproxy.py")
    assert up.ask("GET", "/health").text == "ok"
    for name in [name for floor, name in dropped if floor == "providers"]:
        models = up.ask("POST", "/llm", {"provider": name, "type": "models"}).json["data"]
        model = models[0]["id"] if models else "any"
        asked = {"provider": name, "model": model, "messages": [{"role": "user", "content": "Hello"}]}
        answer = up.ask("POST", "/llm", asked)
        assert (answer.status, answer.json.get("provider")) == (200, name), answer.text
        streamed = up.ask("POST", "/llm", {**asked, "stream": True})
        assert streamed.events[-1] == "[DONE]", streamed.text


SAMPLE = """
```sh
curl -s http://127.0.0.1:3500/health
```

prints

```json
{"id": "...", "n": [1, 2]}
```
# Other

```text
no answer ... of this
```
"""


def test_a_block_is_the_answer_of_the_command_before_it_and_dots_stand_for_anything():
    all_ = blocks(SAMPLE)
    answer = answer_of(0, all_)
    assert (all_[0].line, answer) == (2, all_[1])
    assert answer_of(1, all_) is None  # there is a heading between
    assert fits(answer, '{"id":"chatcmpl-1","n":[1,2]}\n')
    assert not fits(answer, '{"id":"chatcmpl-1","n":[1,3]}')
    assert fits(all_[2], "no answer to any\nline  \n of this\n")
    assert not fits(all_[2], "no answer to any of this, or is it")
