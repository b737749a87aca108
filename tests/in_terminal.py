"""Runs a command in a new terminal, for tests/terminal.rs.

    in_terminal.py close TEXT COMMAND...   closes the terminal once it shows TEXT
    in_terminal.py read - COMMAND...       reads all output and writes it to stdout

The exit code is the command's, or 128 plus the number of the signal that ended the command. It is
99 if the command ended before the terminal was closed.
"""

import os
import pty
import sys

what, until, *command = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    os.execv(command[0], command)
seen = b""
while what == "read" or until.encode() not in seen:
    try:
        part = os.read(terminal, 65536)
    except OSError:  # no process has the terminal open any more
        break
    seen += part
if what == "close" and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
    sys.exit(99)
os.close(terminal)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.stdout.buffer.write(seen)
sys.stdout.flush()
os._exit(code if code >= 0 else 128 - code)
