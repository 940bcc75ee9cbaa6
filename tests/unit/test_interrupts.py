"""Interrupts: one ends a run, none ends a call that would go on without us, and the roll-back is not cut short."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.host import interrupts
from deployer.host.runner import Runner, spawned, telling


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    for number in interrupts.SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    interrupts.listen()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def send(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_a_signal_interrupts_once(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt):
        send(number)
    for again in interrupts.SIGNALS:
        send(again)  # what is being undone is undone to its end


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupts.listen()
    send(signal.SIGHUP)  # as under nohup


def test_behind_a_shield_it_comes_at_the_end() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts.shielded():
        with interrupts.shielded():
            send()
            done.append("inner")
        send()
        done.append("outer")
    assert done == ["inner", "outer"]
    with interrupts.shielded():
        pass  # told once


def test_a_failure_behind_a_shield_does_not_swallow_it() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, interrupts.shielded():
        send()
        raise ValueError("the call failed as well")
    assert isinstance(caught.value.__context__, ValueError)


def test_a_shield_in_another_thread_does_not_hold_it_back() -> None:
    inside, over = threading.Event(), threading.Event()

    def work() -> None:
        with interrupts.shielded():
            inside.set()
            over.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(60)
    try:
        with pytest.raises(KeyboardInterrupt):
            send()
    finally:
        over.set()
        thread.join()


# It interrupts whoever asks, waits until that was heard, and then does its part: as an engine would.
ENGINE = """
import os, signal, sys
os.kill(os.getppid(), signal.SIGINT)
open(sys.argv[1], "w").write("made")
"""


def test_a_call_of_an_engine_comes_to_its_end(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Runner().run((sys.executable, "-c", ENGINE, str(tmp_path / "container")))
    assert (tmp_path / "container").read_text() == "made"


def test_a_terminal_interrupts_us_and_not_the_engine() -> None:
    """Ctrl-C is sent to the process group that is in the foreground."""
    group = Runner().run((sys.executable, "-c", "import os; print(os.getpgrp(), os.getpid())")).stdout.split()
    assert group[0] == group[1]


def test_a_start_is_put_on_record_before_it_is_interrupted(tmp_path: Path) -> None:
    script = f"import sys; open({str(tmp_path / 'told')!r}, 'w').write(sys.stdin.readline())"
    with (
        pytest.raises(KeyboardInterrupt),
        telling(spawned((sys.executable, "-c", script), env={}, errors_to=tmp_path / "log"), "go") as pid,
    ):
        send()
        record = pid
    os.waitpid(record, 0)
    assert (tmp_path / "told").read_text() == "go\n"


def test_a_start_that_fails_leaves_no_process(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="disk"),
        telling(spawned((sys.executable, "-c", "input()"), env={}, errors_to=tmp_path / "log"), "go") as pid,
    ):
        raise OSError("the disk is full")
    assert subprocess.run(["ps", "-p", str(pid)], capture_output=True, check=False).returncode == 1
