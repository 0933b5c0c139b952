"""What the guide says, document by document: its files are used and its commands run as they stand there."""

from pathlib import Path

from tests.support.daemon_process import REPOSITORY, DaemonProcess
from tests.support.guide import blocks, run_commands, write_files
from tests.support.ports import free_port


def test_the_quick_start(tmp_path: Path) -> None:
    """Its daemon is killed in the middle of the work, and the event ends; it is installed as the README says."""
    write_files("quickstart", tmp_path)
    run_commands("quickstart", DaemonProcess(tmp_path), str(free_port()))
    (install,) = (block.text for block in blocks("quickstart") if block.language == "console")
    assert install.splitlines()[0] in (REPOSITORY / "README.md").read_text()
