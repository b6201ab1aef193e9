import getpass
import importlib.util
import os
import signal
import sys

# Started as a command: Ctrl-C while the libraries are loaded, which takes seconds, ends it like any other program.
# From then on stages/common/errors.py takes it. (Python sets argv[0] to the module's path after this import.)
if sys.argv[:1] == ["-m"]:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if importlib.util.find_spec("typer") is None:
        sys.exit(f"error: {sys.executable} lacks the project's packages; in its environment: source .venv/bin/activate")

# Libraries that tell their makers about the computer that they run on, and do so unless they are told not to.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime, from the moment it is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # of the cluster that `--engine ray` starts
sys.modules["openvino_telemetry"] = None  # OpenVINO, which does without a package that is not found

try:
    getpass.getuser()
except (KeyError, OSError):
    # a user without a passwd entry, as in containers: PyTorch asks for the name while it is imported
    os.environ["LOGNAME"] = str(os.getuid())
