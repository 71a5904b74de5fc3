"""The runner of the tests: what it reads from pytest, and what it says when a Python cannot be used."""

from __future__ import annotations

import os

import run


def python(version: str = "3.9", **more: bool) -> run.Python:
    return run.Python("/usr/bin/python" + version, version, True, more.get("makes_venvs", True), False)


def test_counts_are_read_from_the_last_line():
    assert run.counted("FAILED a\n1 failed, 10 passed, 2 skipped, 1 error in 2.13s") == {
        "failed": 1,
        "passed": 10,
        "skipped": 2,
        "error": 1,
    }
    assert run.counted("2 errors in 0.10s (0:00:10)") == {"error": 2}
    assert run.counted("it broke") == {}


def test_the_last_line_tells_the_sum(capsys):
    results = [
        run.Result(python(), "", {"passed": 3, "skipped": 1}, 1.0),
        run.Result(python("3.10"), "", {"error": 2}, 1),
    ]
    assert run.summed(results) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "3 passed, 2 failed, 1 skipped"
    assert run.summed(results[:1]) == 0
    assert run.summed([run.Result(python(), "", {}, 0, run.Unusable("no"))]) == 1


def test_what_failed_on_one_python_is_not_told_in_full_again(capsys):
    output = "=== FAILURES ===\nlong story\nFAILED tests/a.py::test_x - no\n1 failed in 0.1s"
    known = {}
    for version in ("3.9", "3.10"):
        run.told(run.Result(python(version), output, {"failed": 1}, 1.0), known)
    said = capsys.readouterr().out
    assert said.count("long story") == 1
    assert "as on 3.9: tests/a.py::test_x" in said


def test_paths_are_good_from_any_folder_and_no_path_means_all(monkeypatch, tmp_path):
    monkeypatch.chdir(os.path.dirname(__file__))
    here = os.path.abspath("test_house_runner.py")
    assert run.rooted(["-k", "x", "test_house_runner.py::test_a"]) == ["-k", "x", here + "::test_a"]
    assert run.rooted(["-k", "x"]) == ["-k", "x", str(run.ROOT / "tests")]


def test_a_python_that_cannot_make_venvs_gets_its_remedy():
    trouble = run.unusable(python(makes_venvs=False), ["python3.9", "-m", "venv", "x"], [])
    assert "ensurepip" in str(trouble)
    assert "python3.9-venv" in trouble.remedy


def test_packages_that_cannot_be_had_get_theirs():
    trouble = run.unusable(python(), ["python3.9", "-m", "pip", "install"], ["ERROR: No matching distribution", "more"])
    assert "No matching distribution" in str(trouble)
    assert "PIP_FIND_LINKS" in trouble.remedy


def test_venvs_live_elsewhere_when_the_tree_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("LLMPROXY_TEST_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(run, "ROOT", tmp_path / "file")  # nothing can be below a file
    assert run.cache() == (tmp_path / "home" / "llmproxy-tests").resolve()
    monkeypatch.setenv("LLMPROXY_TEST_CACHE", str(tmp_path / "given"))
    assert run.cache() == (tmp_path / "given").resolve()


def test_the_long_tests_are_left_to_the_outermost_pythons():
    oldest, middle, newest = python("3.9"), python("3.11"), python("3.13")
    every = [oldest, middle, newest]
    assert [run.left_to_others(one, every) for one in every] == ["newest", "newest outermost", ""]
    assert run.left_to_others(middle, [middle]) == ""


def test_what_is_left_to_other_pythons_is_told_once(capsys):
    lines = [f"SKIPPED [1] tests/test_x.py:{n}: tries the kernel: left to the newest Python" for n in (1, 2)]
    output = "\n".join([*lines, "SKIPPED [1] tests/test_y.py:3: no Chromium", "1 passed, 3 skipped in 1.0s"])
    run.summed([run.Result(python(), output, {"passed": 1, "skipped": 3}, 1.0)])
    told = capsys.readouterr().out.splitlines()
    assert told[:-1] == [
        "skipped: tests/test_y.py:3: no Chromium",
        "skipped: tries the kernel: left to the newest Python",
    ]
