"""What a crash or a bad disk leaves of a database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def leave_hot_journal(database: Path) -> None:
    """Kill a writer in the middle of a transaction that has already changed pages of the database itself."""
    script = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("pragma cache_size = 2")
connection.execute("begin immediate")
connection.execute("delete from kv")
connection.execute("create table litter (data blob)")
for _ in range(100):
    connection.execute("insert into litter values (randomblob(20000))")
print("spilled", flush=True)
time.sleep(600)
"""
    before = database.read_bytes()
    writer = subprocess.Popen([sys.executable, "-c", script, str(database)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"spilled\n"
    finally:
        writer.kill()
        writer.communicate()
    journal = database.with_name(".sqlite-journal")
    assert journal.read_bytes()[:8] == bytes.fromhex("d9d505f920a163d7")
    assert database.read_bytes() != before


def truncate(database: Path) -> None:
    with database.open("r+b") as stream:
        stream.truncate(database.stat().st_size // 2)
