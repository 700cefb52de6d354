"""benchmarks/gpu.sh, with programs that play the part of those that need a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = sorted(path.stem for path in ROOT.glob("tests/gpu/*_check.cu"))


def run(*stages: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "benchmarks/gpu.sh", *stages],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": sys.executable, **environment},
    )


def program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def played(tmp_path: Path) -> dict[str, str]:
    """What a build leaves, and a sanitizer that finds something."""
    (tmp_path / "build/relprop").mkdir(parents=True)
    for name in PROGRAMS:
        program(tmp_path / "build" / name, "echo 'ok   all'")
    (tmp_path / "bin").mkdir()
    program(
        tmp_path / "bin/compute-sanitizer",
        'echo "$@"\n[ "$2" != racecheck ] || exit 9\nfor last; do :; done\nexec "$last"',
    )
    return {
        "BUILD": str(tmp_path / "build"),
        "OUT": str(tmp_path / "out"),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }


def results(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    rows = done.stdout.partition("seconds\n")[2].splitlines()
    return {
        row.split()[0]: row[12:25].strip() for row in rows if row[:1].isalpha() and ":" not in row
    }


def test_stages_pass_and_fail_each_for_itself(played: dict[str, str]) -> None:
    Path(played["BUILD"], "pool_check").write_text("#!/bin/sh\necho 'FAR  max_pool'\nexit 1\n")
    done = run("checks", "sanitizers", "build", **played)
    assert done.returncode == 1, done.stderr
    assert results(done) == {"checks": "FAILED", "sanitizers": "FAILED", "build": "skipped"}
    assert "    FAR  max_pool\n    FAILED pool_check\n" in done.stdout
    assert done.stdout.count("FAILED racecheck") == len(PROGRAMS)
    assert "FAILED memcheck pool_check: exit code 1" in done.stdout
    assert "FAILED memcheck kernels_check" not in done.stdout
    summary, log = (Path(played["OUT"], name).read_text() for name in ("summary.txt", "log.txt"))
    assert "checks" in summary
    assert "ok   all" in log
    assert "--tool memcheck" in log


def test_checks_end_before_their_sanitizer_is_stopped(played: dict[str, str]) -> None:
    for name in PROGRAMS:
        program(Path(played["BUILD"], name), 'echo "given $RELPROP_CHECK_SECONDS"')
    program(Path(played["BUILD"], "product_check"), "exec sleep 60")
    done = run("sanitizers", SANITIZER_SECONDS="3", LIMITS="sanitizers=9", **played)
    log = Path(played["OUT"], "log.txt").read_text()
    assert results(done) == {"sanitizers": "FAILED"}
    assert "given 2\n" in log
    assert "FAILED memcheck product_check: exit code 124" in log
    assert "FAILED synccheck product_check: no time left" in log


def test_a_stage_that_takes_too_long_is_stopped(played: dict[str, str]) -> None:
    program(Path(played["BUILD"], "product_check"), "exec sleep 60")
    done = run("checks", "build", LIMITS="checks=1", **played)
    assert results(done) == {"checks": "out of time", "build": "skipped"}
    assert done.returncode == 1


def test_all_stages_together_have_a_budget(played: dict[str, str]) -> None:
    program(Path(played["BUILD"], "product_check"), "exec sleep 60")
    done = run("checks", "build", BUDGET="2", **played)
    assert results(done) == {"checks": "out of time", "build": "not reached"}
    assert done.returncode == 1


def test_all_is_well(played: dict[str, str]) -> None:
    done = run("build", "checks", **played)
    assert (done.returncode, results(done)) == (0, {"build": "skipped", "checks": "passed"})


def test_a_stage_without_a_build_says_so(played: dict[str, str], tmp_path: Path) -> None:
    done = run("layers", **{**played, "BUILD": str(tmp_path / "nothing")})
    assert results(done) == {"layers": "FAILED"}
    assert "nothing is missing: run the stage build first" in done.stdout


def test_unknown_stages_are_refused(played: dict[str, str]) -> None:
    done = run("checks", "bild", **played)
    assert done.returncode == 2
    assert "a stage must be one of build checks" in done.stderr
    assert "not bild" in done.stderr


def test_without_a_gpu_it_ends_at_once(tmp_path: Path) -> None:
    program(tmp_path / "nvidia-smi", "echo 'Failed to initialize NVML: no driver'\nexit 9")
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = run(PATH=path, OUT=str(tmp_path / "out"), BUILD="")
    assert done.returncode == 2
    assert done.stderr == "make gpu: there is no NVIDIA GPU here (nvidia-smi: no driver).\n"
    assert not (tmp_path / "out").exists()


def test_every_program_is_built_and_run() -> None:
    built = re.search(r"set\(CUDA_CHECKS (.*)\)", (ROOT / "CMakeLists.txt").read_text())
    run_there = re.search(r"^checks=\((.*)\)", (ROOT / "benchmarks/gpu.sh").read_text(), re.M)
    assert built and sorted(built[1].split()) == PROGRAMS
    assert run_there and sorted(run_there[1].split()) == PROGRAMS
