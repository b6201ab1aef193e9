"""Outputs are complete or absent."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.errors import explain, printable
from stages.common.files import link_or_copy, new_file, new_folder, sha256_file, write_csv, write_json

ROOT = Path(__file__).parent.parent


def test_a_file_replaces_the_old_one_only_when_complete(tmp_path):
    target = tmp_path / "deep" / "out.txt"
    with new_file(target) as part:
        part.write_text("first")
    with pytest.raises(RuntimeError), new_file(target) as part:
        part.write_text("half")
        raise RuntimeError
    assert target.read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["out.txt"]


def test_a_folder_replaces_the_old_one_only_when_complete(tmp_path):
    target = tmp_path / "out"
    with new_folder(target) as part:
        (part / "a").write_text("first")
    with pytest.raises(RuntimeError), new_folder(target) as part:
        (part / "b").write_text("half")
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["a"]
    with new_folder(target) as part:
        (part / "c").write_text("second")
    assert [path.name for path in target.iterdir()] == ["c"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_to_a_folder_stays_and_the_folder_behind_it_is_replaced(tmp_path, there):
    disk = tmp_path / "disk/out"
    (disk if there else disk.parent).mkdir(parents=True)
    (tmp_path / "out").symlink_to("disk/out")
    for name in ("first", "second"):
        with new_folder(tmp_path / "out") as part:
            (part / name).touch()
    assert (tmp_path / "out").is_symlink()
    assert [path.name for path in disk.iterdir()] == ["second"]
    assert [path.name for path in disk.parent.iterdir()] == ["out"]


LEAVE = """
import os, sys, time
from pathlib import Path
from stages.common.files import new_file, new_folder
with new_folder(Path(sys.argv[1]) / "folder") as folder, new_file(Path(sys.argv[1]) / "file") as file:
    (folder / "half").touch()
    print("ready", flush=True)
    time.sleep(100)
"""


WRITE = """
import sys
from pathlib import Path
from stages.common.files import new_file, new_folder
with new_folder(Path(sys.argv[1]) / "folder"), new_file(Path(sys.argv[1]) / "file"):
    pass
"""


def test_the_next_process_removes_leftovers_of_a_kill_but_no_file_in_use(tmp_path):
    def write() -> None:
        subprocess.run([sys.executable, "-c", WRITE, str(tmp_path)], cwd=ROOT, check=True)

    living = subprocess.Popen([sys.executable, "-c", LEAVE, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    living.stdout.readline()
    parts = sorted(tmp_path.iterdir())
    assert [path.suffix for path in parts] == [".part", ".part"]
    write()
    assert sorted(tmp_path.glob(".*")) == parts
    living.kill()
    living.wait()
    write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_process_looks_into_a_folder_once_however_many_files_it_writes(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: looked.append(folder) or [])
    for number in range(30):
        with new_file(tmp_path / f"{number}.json") as part:
            part.write_text("{}")
    assert looked == [tmp_path.resolve()]


def test_a_write_error_names_the_output_not_the_temporary_file(tmp_path):
    with pytest.raises(OSError) as caught, new_folder(tmp_path / "out") as part:
        (part / "missing/file").write_text("x")
    assert explain(caught.value) == f"{tmp_path}/out: No such file or directory"
    with pytest.raises(OSError) as caught, new_file(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert explain(caught.value).startswith(f"{tmp_path}/out: the disk is full (No space left on device)")
    with pytest.raises(OSError) as caught, new_folder(tmp_path / "out") as part:
        # as shutil.copyfile says it
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "source", None, str(part / "target"))
    assert explain(caught.value).startswith(f"{tmp_path}/out: the disk is full")
    with pytest.raises(OSError) as caught, new_file(tmp_path / ("n" * 250)):
        pass
    assert explain(caught.value) == f"{tmp_path}/{'n' * 250}: File name too long"


def test_a_full_disk_under_weights_does_not_blame_their_source(tmp_path):
    """A limit on the size of a file stands in for the full disk."""
    (tmp_path / "from").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "from" / name).write_bytes(bytes(9000))
    code = "import resource; from pathlib import Path; from stages.checkpoints.fetch import copy_folder; "
    code += "from stages.common.errors import run; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); "
    code += f"run(lambda: copy_folder(Path({str(tmp_path / 'from')!r}), Path({str(tmp_path / 'to')!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"error: {tmp_path}/to: File too large\n")


def test_a_terminal_that_cannot_show_a_name_ends_no_command():
    code = "from stages.common.errors import run\nrun(lambda: print('r\\xf6tor.jpg'))"
    words, ascii_alone = [sys.executable, "-c", code], os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, cwd=ROOT, env=ascii_alone, stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, "r\\xf6tor.jpg\n")


def test_a_command_whose_stderr_is_closed_does_its_work_and_keeps_its_status():
    code = "import signal; from stages.common.errors import run; from stages.common.progress import progress\n"
    code += "def main(): print(*progress(range(3), 'test', 'images')){}\nrun(main)"
    for then, status in (("", 0), ("; signal.raise_signal(signal.SIGTERM)", 143)):
        words = ["sh", "-c", 'exec "$0" "$@" 2>&-', sys.executable, "-c", code.format(then)]
        done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert (done.returncode, done.stdout) == (status, "0 1 2\n")


def test_an_output_is_as_readable_as_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    (tmp_path / "plain folder").mkdir()
    with new_file(tmp_path / "ours"), new_folder(tmp_path / "our folder") as part:
        (part / "private").touch(0o600)
    for ours, plain in (("ours", "plain"), ("our folder", "plain folder"), ("our folder/private", "plain")):
        assert (tmp_path / ours).stat().st_mode == (tmp_path / plain).stat().st_mode


def test_the_umask_which_all_threads_share_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail(f"set to {mask:o}"))
    with new_file(tmp_path / "file"), new_folder(tmp_path / "folder"):
        pass


def test_json_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"x": 0.5, "none": None})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 0.5, "none": None}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 0.5, "none": None}


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_csv_quotes_only_where_needed(tmp_path):
    write_csv(tmp_path / "a.csv", ("name", "value"), [('a, "b"', None), ("été\nx", 0.1)])
    assert (tmp_path / "a.csv").read_bytes() == 'name,value\n"a, ""b""",\n"été\nx",0.1\n'.encode()


def test_csv_runs_nothing_in_a_spreadsheet(tmp_path):
    rows = [("=cmd|' /C calc'!A0", -1.5), ("@x", -1), ("a=b", 0), ("-\x07", "+1")]
    write_csv(tmp_path / "a.csv", ("name", "value"), rows)
    written = (tmp_path / "a.csv").read_bytes().decode().splitlines()
    assert written[1:] == ["'=cmd|' /C calc'!A0,-1.5", "'@x,-1", "a=b,0", "'-\x07,'+1"]


def test_no_escape_sequence_reaches_the_terminal():
    assert printable("a\x1b[2J\nb\udcff é\x9b") == r"a\x1b[2J b\udcff é\x9b"


def test_a_file_is_copied_where_links_are_not_possible(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"x")
    link_or_copy(tmp_path / "a", tmp_path / "deep/linked")
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("cross-device")))
    link_or_copy(tmp_path / "a", tmp_path / "deep/copied")
    for name, same in (("linked", True), ("copied", False)):
        path = tmp_path / "deep" / name
        assert (path.read_bytes(), path.samefile(tmp_path / "a")) == (b"x", same)
