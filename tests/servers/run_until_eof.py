#!/usr/bin/env python3
"""Runs a command for as long as somebody holds our standard input open, and cleans up after it.

    run_until_eof.py PATH... -- COMMAND [ARGUMENT...]

A test process that is killed cannot end the servers it started, but the system closes the pipe it held.
At the end of that pipe the command and everything it started receive SIGKILL, and the folders and files
they used, the PATHs, are removed. A byte in the pipe kills as well but removes nothing, for a restart.
When the command ends by itself, so does this, with the same exit code, and nothing is removed.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path


def main():
    end_of_paths = sys.argv.index("--")
    # A group of its own: it can be ended as a whole, and Ctrl-C reaches it through the pipe alone.
    command = subprocess.Popen(sys.argv[end_of_paths + 1 :], stdin=subprocess.DEVNULL, start_new_session=True)
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: kill(command))
    abandoned = threading.Event()

    def watch():
        if not os.read(sys.stdin.fileno(), 1):
            abandoned.set()
        kill(command)

    threading.Thread(target=watch, daemon=True).start()
    code = command.wait()
    kill(command)
    if abandoned.is_set():
        for path in map(Path, sys.argv[1:end_of_paths]):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    sys.exit(code if code >= 0 else 128 - code)


def kill(command: subprocess.Popen):
    try:
        os.killpg(command.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    main()
