"""The private environment: made, broken off in every phase, made again, updated, mended, removed; and what is said."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import bpy
import in_blender as b
import pytest
import wheels

pytestmark = pytest.mark.skipif(
    bpy.app.version[:2] not in ((5, 0), (5, 2)), reason="no Blender in it: the Pythons of two of them are enough"
)
WAIT_S = 120.0


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return wheels.put_heavy(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def install():
    return b.module("install")


@pytest.fixture
def new(tmp_path, install):
    """Makes installers of one home, as several Blenders would."""
    return makes(tmp_path, install, real_pip=False)


@pytest.fixture
def new_with_pip(tmp_path, install):
    """The same, where it matters what pip itself does: it takes seconds to start."""
    return makes(tmp_path, install, real_pip=True)


def makes(folder, install, real_pip):
    home = install.Home(folder / "Benutzer Ü ホーム" / "server")
    payload = wheels.put_payload(folder / "zip", real_pip=real_pip)
    return lambda: install.Installer(home, payload)


@pytest.fixture
def order(install, source):
    return install.Order(Path(sys.executable), "cpu", str(source))


def until(installer, condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        installer.step()
        assert time.monotonic() < deadline, (installer.doing, installer.problem)
        time.sleep(0.01)


def through(installer):
    until(installer, lambda: not installer.busy)
    return installer


@pytest.fixture(scope="module")
def whole(tmp_path_factory, source):
    """An installed home, to be copied."""
    install = b.module("install")
    folder = tmp_path_factory.mktemp("whole")
    installer = install.Installer(install.Home(folder / "server"), wheels.put_payload(folder / "zip"))
    installer.install(install.Order(Path(sys.executable), "cpu", str(source)))
    assert through(installer).problem == ""
    return folder / "server"


@pytest.fixture
def installed(new, whole):
    installer = new()
    shutil.copytree(whole, installer.home.folder, symlinks=True)
    assert installer.state == "ready"
    return installer


def runs(installer):
    command = [installer.home.python, "-I", "-c", "import sfserver; print(sfserver.__version__)"]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S).stdout.strip()


def test_it_is_made_apart_from_blenders_python_below_any_name(new_with_pip, order):
    before = sorted(Path(sys.prefix).rglob("*.dist-info"))
    installer = new_with_pip()
    assert installer.state == "absent"
    installer.install(order)
    said, fractions = set(), []
    until(installer, lambda: said.add(installer.doing) or fractions.append(installer.fraction) or not installer.busy)
    assert installer.problem == ""
    assert installer.state == "ready"
    assert runs(installer) == "0.1.0"
    assert {"Making the environment", "Installing the server", "Unpacking 5 packages", "Trying it"} <= said
    assert fractions[:-1] == sorted(fractions[:-1])  # the last was asked for when all was over
    assert not installer.home.downloads.exists()
    assert not installer.home.temp.exists()
    assert sorted(Path(sys.prefix).rglob("*.dist-info")) == before


def phases(install, installer, order):
    steps = install.steps_to_install(installer.home, installer.payload, order, anew=True)
    return [step.title for step in steps]


def at(installer, title):
    return lambda: installer.busy and installer._steps[installer._at].title == title


def test_cancelled_in_every_phase_it_is_never_used_and_goes_on_with_a_press(new, order, install):
    installer = new()
    titles = phases(install, installer, order)
    assert titles[0] == "Looking at what has come"
    assert titles[1:] == ["Making the environment", "Installing the server", "Trying it", "Tidying up"]
    for title in titles:
        installer.install(order)
        until(installer, at(installer, title))
        installer.cancel()
        assert installer.doing == "Cancelling"
        through(installer)
        assert (installer.problem, installer.cancelled) == ("", True)
        proven = title == "Tidying up"
        assert installer.state in (("ready",) if proven else ("half", "absent"))
        assert installer.home.receipt.exists() == proven
    assert runs(installer) == "0.1.0"


HOLDER = """
import importlib, sys, time, types
from pathlib import Path
package = types.ModuleType("extension")
package.__path__ = [sys.argv[1]]
sys.modules["extension"] = package
install = importlib.import_module("extension.install")
home, payload = install.Home(Path(sys.argv[2])), install.Payload(Path(sys.argv[3]))
installer = install.Installer(home, payload)
installer.install(install.Order(Path(sys.executable), "cpu", sys.argv[4]))
while installer.busy:
    print(installer._steps[installer._at].title, installer._errand._process.pid, flush=True)
    installer.step()
    time.sleep(0.01)
"""


def test_blender_killed_in_every_phase_leaves_no_process_and_nothing_that_is_used(new, order, install, tmp_path):
    survivor = new()
    script = tmp_path / "holder.py"
    script.write_text(HOLDER)
    extension, home = Path(install.__file__).parent, survivor.home
    command = [sys.executable, script, extension, home.folder, survivor.payload.folder, order.source]
    for title in phases(install, survivor, order)[:-1]:
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = next(line for line in holder.stdout if line.startswith(title))
        holder.kill()
        holder.wait(timeout=WAIT_S)
        holder.stdout.close()
        deadline = time.monotonic() + WAIT_S
        while Path(f"/proc/{line.split()[-1]}").exists() and not is_zombie(int(line.split()[-1])):
            assert time.monotonic() < deadline, f"{title} goes on without Blender"
            time.sleep(0.01)
        assert survivor.state in ("half", "absent"), title
    survivor.install(order)
    assert through(survivor).problem == ""
    assert runs(survivor) == "0.1.0"


def is_zombie(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_a_second_blender_waits_for_the_first(new, order, install):
    first, second = new(), new()
    first.install(order)
    with pytest.raises(install.CannotInstall, match="Another Blender is installing the server: wait for it"):
        second.install(order)
    assert first.busy
    assert not second.busy
    first.let_go()
    second.install(order)
    second.let_go()


def test_the_lock_outlives_blender_as_long_as_its_process_does(new, order, install):
    """Else a second Blender could begin in the moment in which the first one's process has not noticed."""
    first, second = new(), new()
    first.install(order)
    process = first._errand._process
    first._lock.close()  # as the system does for one that was killed
    with pytest.raises(install.CannotInstall, match="Another Blender"):
        second.install(order)
    process.kill()
    process.wait(timeout=WAIT_S)
    second.install(order)
    second.let_go()
    first.let_go()


@pytest.mark.parametrize("text", ["", "{}", "[1]", "{", '{"version": 1, "evil": 2}', "\0"])
def test_a_damaged_receipt_is_none(installed, text):
    installed.home.receipt.write_text(text)
    assert installed.state == "half"


def test_a_receipt_of_a_later_version_is_read(installed):
    written = json.loads(installed.home.receipt.read_text())
    installed.home.receipt.write_text(json.dumps(written | {"news": 1}))
    assert installed.state == "ready"
    installed.home.receipt.write_text(json.dumps(written | {"base": 1}))
    assert installed.state == "half"


def test_without_its_receipt_a_whole_environment_counts_as_half_made(installed):
    installed.home.receipt.unlink()
    assert installed.state == "half"


def test_a_newer_wheel_in_the_zip_is_offered_and_replaces_the_old_one_alone(installed, order, tmp_path, install):
    wheels.put_payload(tmp_path / "zip", version="0.2.0")
    assert installed.state == "old"
    torch = installed.home.environment / next(installed.home.environment.rglob("torch/__init__.py"))
    before = torch.stat().st_mtime_ns
    installed.install(order)
    assert not installed.home.receipt.exists()  # while it is being changed it does not count
    assert through(installed).problem == ""
    assert installed.state == "ready"
    assert runs(installed) == "0.2.0"
    assert torch.stat().st_mtime_ns == before


def test_the_same_server_is_not_installed_twice_but_for_another_backend(installed, order, install):
    with pytest.raises(install.CannotInstall, match="installed already"):
        installed.install(order)
    assert installed.state == "ready"
    installed.install(install.Order(order.python, "nvidia", order.source))
    installed.cancel()
    assert through(installed).state == "half"


def test_one_whose_blender_was_moved_finds_python_again_without_a_download(installed, install):
    python = installed.home.python
    python.unlink()
    python.symlink_to("/nowhere/python")
    assert installed.state == "moved"
    installed.mend(Path(sys.executable))
    assert through(installed).problem == ""
    assert installed.state == "ready"
    assert runs(installed) == "0.1.0"


def test_removed_it_leaves_nothing_that_counts(installed):
    installed.remove(Path(sys.executable))
    assert not installed.home.receipt.exists()
    assert through(installed).problem == ""
    assert installed.state == "absent"
    assert not installed.home.environment.exists()


def test_a_removal_that_was_broken_off_is_not_taken_for_an_installation(installed):
    installed.remove(Path(sys.executable))
    installed.let_go()
    assert installed.state in ("half", "absent")


def test_what_cannot_be_loaded_is_known_before_it_is_used(new, install, tmp_path):
    broken = wheels.put_heavy(tmp_path / "broken", extra="raise ImportError('DLL load failed')\n")
    installer = new()
    installer.install(install.Order(Path(sys.executable), "cpu", str(broken)))
    through(installer)
    assert "torch was installed and cannot be loaded (DLL load failed)" in installer.problem
    assert installer.state == "half"


def test_a_source_without_a_package_is_named_with_the_package(new_with_pip, install, tmp_path):
    poor = wheels.put_heavy(tmp_path / "poor", but=("zmq",))
    installer = new_with_pip()
    installer.install(install.Order(Path(sys.executable), "cpu", str(poor)))
    assert "has no zmq for this system" in through(installer).problem


def test_a_full_disk_is_said_before_anything_is_done(new, order, install, monkeypatch):
    usage = shutil._ntuple_diskusage(10**12, 10**12, 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    installer = new()
    with pytest.raises(
        install.CannotInstall, match=r"too full, this needs 1.\d GB and there are 0.1 GB free: make room"
    ):
        installer.install(order)
    assert not installer.home.environment.exists()


def test_a_folder_that_cannot_be_written_is_named(install, order, tmp_path):
    (tmp_path / "file").write_text("")
    installer = install.Installer(install.Home(tmp_path / "file" / "server"), wheels.put_payload(tmp_path / "zip"))
    with pytest.raises(install.CannotInstall, match="cannot be written: Not a directory"):
        installer.install(order)


def test_a_source_that_is_nothing_is_refused(new, install):
    with pytest.raises(install.CannotInstall, match="neither a folder nor an address: correct the Package Source"):
        new().install(install.Order(Path(sys.executable), "cpu", "wheels"))


def test_a_python_that_cannot_be_run_is_named(new, install, source):
    installer = new()
    installer.install(install.Order(Path("/nowhere/python"), "cpu", str(source)))
    assert installer.problem.startswith("/nowhere/python cannot be run")
    assert not installer.busy


def test_a_python_that_is_too_old_says_which_is_needed(tmp_path):
    held = Path(b.module("errand").HELD)
    code = (
        f"import runpy, sys; held = runpy.run_path({str(held)!r}); sys.version_info = (3, 10, 2, 'final', 0); "
        f"from pathlib import Path; held['environment'](Path({str(tmp_path / 'env')!r}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S)
    sentence = b.module("progress").explain(ended.stderr.splitlines(), ended.returncode)
    assert sentence == "Python 3.11 or newer is needed, this is 3.10: use Blender 4.2 or newer"
    assert not (tmp_path / "env").exists()


class Index(BaseHTTPRequestHandler):
    """Package indices on this computer, of the wheels in the folder of the server; breaks off where `broken` says. One
    by a name in `only` has that project alone."""

    def do_GET(self):
        self.server.asked.append(self.path)
        index, project, name = self.path.split("/")[1:4]
        has = self.server.only.get(index, project)
        found = [path for path in self.server.folder.glob("*.whl") if path.name.split("-")[0] == project == has]
        if not found:
            self.answer(403, b"", "no-store")
        elif not name:
            links = "".join(f'<a href="{path.name}">{path.name}</a>' for path in found)
            self.answer(200, links.encode(), "no-store", "text/html")
        elif project == self.server.broken:
            self.answer(503, b"", "no-store")
        else:
            self.answer(200, found[0].read_bytes(), self.server.caching)

    def answer(self, code, body, caching, kind="application/octet-stream"):
        self.send_response(code)
        for header, value in (("Content-Length", len(body)), ("Content-Type", kind), ("Cache-Control", caching)):
            self.send_header(header, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def index(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    server.folder, server.broken, server.asked, server.caching = tmp_path, "", [], "max-age=86400"
    server.only = {}
    server.url = f"http://127.0.0.1:{server.server_port}/simple"
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def without_mirrors(monkeypatch):
    """The tests' own network is none: neither variables nor files may name another index."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")


def test_an_index_that_refuses_is_said_to(new_with_pip, install, index, monkeypatch):
    without_mirrors(monkeypatch)
    installer = new_with_pip()
    installer.install(install.Order(Path(sys.executable), "cpu", index.url))
    assert through(installer).problem.startswith("The package index refused, with HTTP code 403: try again later")


def test_what_came_before_the_network_broke_is_not_asked_for_again(new_with_pip, install, source, index, monkeypatch):
    without_mirrors(monkeypatch)
    index.folder, index.broken = source, "zmq"
    installer = new_with_pip()
    order = install.Order(Path(sys.executable), "cpu", index.url)
    installer.install(order)
    assert "HTTP code 503" in through(installer).problem
    came = {path for path in index.asked if path.endswith(".whl")} - {"/simple/zmq/zmq-1.0-py3-none-any.whl"}
    assert "/simple/torch/torch-1.0-py3-none-any.whl" in came
    index.asked.clear()
    index.broken = ""
    installer.install(order)
    assert through(installer).problem == ""
    assert not came & set(index.asked)


def test_from_pytorchs_own_index_comes_pytorch_alone(new_with_pip, install, index, tmp_path, monkeypatch):
    without_mirrors(monkeypatch)
    index.folder, index.only = wheels.put_heavy(tmp_path / "wheels", but=("torch",)), {"cpu": "torch"}
    wheels.put_wheel(index.folder, "torch", "1.0", {"torch/__init__.py": ""}, needs=("numpy",))
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    monkeypatch.setattr(b.module("steps"), "PYTORCH_INDEX", index.url.removesuffix("simple"))
    installer = new_with_pip()
    installer.install(install.Order(Path(sys.executable), "cpu"))
    assert through(installer).problem == ""
    assert installer.state == "ready"
    assert "/cpu/torch/torch-1.0-py3-none-any.whl" in index.asked
    assert not [path for path in index.asked if path.startswith("/cpu/numpy")]


def test_whole_files_that_a_killed_pip_left_are_kept_and_torn_ones_are_not(tmp_path, source):
    held = runpy.run_path(str(b.module("errand").HELD))
    temp, kept = tmp_path / "temp", tmp_path / "kept"
    (temp / "pip-unpack-1").mkdir(parents=True)
    whole = (source / "torch-1.0-py3-none-any.whl").read_bytes()
    (temp / "pip-unpack-1" / "torch-1.0-py3-none-any.whl").write_bytes(whole)
    (temp / "pip-unpack-1" / "numpy-1.0-py3-none-any.whl").write_bytes(whole[:-30])
    (temp / "pip-unpack-1" / "zmq-1.0-py3-none-any.whl").write_bytes(whole.replace(b"__version__", b"__varsion__", 1))
    held["keep"](temp, kept)
    assert [path.name for path in kept.iterdir()] == ["torch-1.0-py3-none-any.whl"]
    assert list(temp.iterdir()) == []


def test_an_index_that_is_not_there_is_said_to_be_out_of_reach(new_with_pip, install, monkeypatch):
    without_mirrors(monkeypatch)
    installer = new_with_pip()
    installer.install(install.Order(Path(sys.executable), "cpu", "http://127.0.0.1:9/simple"))
    assert through(installer).problem.startswith("The package index cannot be reached: check the network")
    assert installer.state == "half"


def test_a_model_is_fetched_with_its_progress_and_the_server_stays_installed(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    installed.fetch("self-forcing")
    until(installed, lambda: installed.doing.startswith("dit.safetensors, ") and "of 1000 MB" in installed.doing)
    (tmp_path / "seen").touch()
    through(installed)
    assert installed.problem == ""
    assert installed.fetched == "self-forcing"
    assert installed.state == "ready"
    installed.fetch("offline")
    assert through(installed).problem == "the hub cannot be reached; check the network"
    assert installed.state == "ready"


SENTENCES = {
    "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device": "The disk is full",
    "OSError: [Errno 13] Permission denied: 'C:\\\\x'": "A file cannot be written or is in use",
    "HINT: This error might have occurred since this system has no Windows Long Path support": "too long",
    "WARNING: Retrying (Retry(total=4)) after connection broken by 'SSLError(SSLCertVerificationError)'": "certificate",
    "WARNING: Retrying after connection broken by 'ProxyError('Cannot connect to proxy.')'": "The proxy refused",
    "NewConnectionError: [Errno -3] Temporary failure in name resolution": "cannot be reached",
    "ERROR: HTTP error 503 while getting https://index/torch.whl": "refused, with HTTP code 503",
    "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE": "came damaged",
    "OSError: [Errno 30] Read-only file system: 'env'": "read-only",
    "ERROR: No matching distribution found for torch==2.13.0": "has no torch==2.13.0 for this system",
    "ERROR: ResolutionImpossible: for help visit": "no set of versions",
    "Segmentation fault": "ended with exit code 1: Segmentation fault",
}


@pytest.mark.parametrize(("line", "sentence"), SENTENCES.items(), ids=range(len(SENTENCES)))
def test_what_goes_wrong_is_one_sentence_with_the_remedy(line, sentence):
    said = b.module("progress").explain(["Collecting torch", line], 1)
    assert sentence in said
    assert "\n" not in said


def test_how_far_pip_is_adds_up_over_files():
    reader = b.module("progress").Reader()
    for line in (
        "Collecting torch==2.13.0",
        "  Downloading torch-2.13.0-cp313-cp313-manylinux_2_28_x86_64.whl (526.6 MB)",
        "Progress 0 of 526600000",
        "Progress 300000000 of 526600000",
    ):
        reader.read(line)
    assert (reader.downloaded, reader.doing) == (300_000_000, "Downloading torch, 300 of 527 MB")
    reader.read("Progress 526600000 of 526600000")
    reader.read("  Downloading nvidia_cudnn_cu13-9.20.0.48-py3-none-manylinux_2_27_x86_64.whl (366.2 MB)")
    reader.read("Progress 100000000 of 366200000")
    assert (reader.downloaded, reader.doing) == (626_600_000, "Downloading nvidia-cudnn-cu13, 100 of 366 MB")
    reader.read("Installing collected packages: torch, nvidia-cudnn-cu13")
    assert (reader.installing, reader.doing) == (True, "Unpacking 2 packages")


def test_pytorchs_own_index_is_asked_only_where_the_usual_one_lacks_the_build(new, install, monkeypatch):
    installer, builds, pytorch = new(), {}, b.module("steps").PYTORCH_INDEX
    for system in ("linux", "win32", "darwin"):
        monkeypatch.setattr(sys, "platform", system)
        for backend in ("cpu", "nvidia"):
            order = install.Order(Path("python"), backend)
            steps = install.steps_to_install(installer.home, installer.payload, order, anew=True)
            asked = [word for step in steps for word in step.words if word.startswith(pytorch)]
            builds[system, backend] = [url.removeprefix(pytorch) for url in asked]
    cpu, cuda = ["cpu"], ["cu130"]
    assert builds == {
        ("linux", "cpu"): cpu,
        ("linux", "nvidia"): [],
        ("win32", "cpu"): [],
        ("win32", "nvidia"): cuda,
        ("darwin", "cpu"): [],
        ("darwin", "nvidia"): [],
    }
