"""Runs a command in a terminal of its own, as tests/terminal.rs says.

    in_terminal.py close TEXT COMMAND...   closes the terminal once TEXT was seen on it
    in_terminal.py read - COMMAND...       reads it to its end, and writes what was seen to stdout

Ends with the command's exit code, or 128 and the number of the signal that ended it. Where the command had ended by itself before the
terminal was closed, it ends with 99.
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
    except OSError:  # nobody has it open any more
        break
    seen += part
if what == "close" and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
    sys.exit(99)
os.close(terminal)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.stdout.buffer.write(seen)
sys.stdout.flush()
os._exit(code if code >= 0 else 128 - code)
