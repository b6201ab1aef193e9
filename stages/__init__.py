import getpass
import os
import signal
import sys

# Started as a command: Ctrl-C while the libraries are loaded, which takes seconds, ends it like any other program.
# From then on stages/common/errors.py takes it. (Python sets argv[0] to the module's path after this import.)
if sys.argv[:1] == ["-m"]:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

try:
    getpass.getuser()
except (KeyError, OSError):
    # a user without a passwd entry, as in containers: PyTorch asks for the name while it is imported
    os.environ["LOGNAME"] = str(os.getuid())
