import signal
import sys

# Started as a command: Ctrl-C while the libraries are loaded, which takes seconds, ends it like any other program.
# From then on stages/common/errors.py takes it. (Python sets argv[0] to the module's path after this import.)
if sys.argv[:1] == ["-m"]:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
