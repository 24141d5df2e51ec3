"""A Slurm of one node for the length of a ``with``, all of its state in one folder."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = "munge slurmctld slurmd slurm-client slurm-wlm-basic-plugins"
# The job step drops SLURM_CONF, so that commands inside of jobs look here and nowhere else.
LINK = Path("/etc/slurm/slurm.conf")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
# Without control groups memory is looked at each second and a job above its own is killed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
KillWait=2
# No database: the queue keeps what has ended.
MinJobAge=3600
# The node may claim more than the machine has.
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=256000 Gres=gpu:2
PartitionName=cpu Nodes={host} Default=YES MaxTime=1-00:00:00
PartitionName=gpu Nodes={host} MaxTime=1-00:00:00
"""


class Cluster:
    """Two partitions, ``cpu`` and ``gpu``, four processors and two GPUs that are none."""

    def __init__(self, folder: Path):
        """Names the folder of the key, the configuration, the state and the logs."""
        self.folder = folder
        self.daemons = []

    def __enter__(self) -> "Cluster":
        """Starts munged, slurmctld and slurmd."""
        missing = [
            program
            for program in ("mungekey", "munged", "slurmctld", "slurmd", "sbatch")
            if not shutil.which(program)
        ]
        if missing:
            raise RuntimeError(
                f"no {', '.join(missing)}. These tests need Slurm: apt-get install {PACKAGES}"
            )
        if os.path.lexists(LINK):
            raise RuntimeError(
                f"{LINK} exists: this machine has a Slurm, or a test that was killed left the "
                "link. Where it is such a link, remove it."
            )
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Ends all jobs and the three programs."""
        if LINK.is_symlink() and os.readlink(LINK) == str(self.folder / "slurm.conf"):
            subprocess.run(["scancel", "--full", "--user", getpass.getuser()], check=False)
            self._wait_until(lambda: not query("squeue", "--noheader"))
            LINK.unlink()
        for daemon in reversed(self.daemons):
            daemon.terminate()
            daemon.wait()

    def _start(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        subprocess.run(["mungekey", "--create", "--keyfile", key], check=True)
        self._daemon(
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={self.folder}/munge.socket",
            f"--pid-file={self.folder}/munged.pid",
            f"--seed-file={self.folder}/munged.seed",
        )
        self._wait_until((self.folder / "munge.socket").exists)
        values = {
            "folder": self.folder,
            "host": socket.gethostname().partition(".")[0],
            "user": getpass.getuser(),
            "controller_port": free_port(),
            "node_port": free_port(),
        }
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(**values))
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-1]\n")
        for number in range(2):
            (self.folder / f"gpu{number}").symlink_to("/dev/null")
        LINK.parent.mkdir(exist_ok=True)
        LINK.symlink_to(self.folder / "slurm.conf")
        self._daemon("slurmctld", "-D", "-i")
        self._daemon("slurmd", "-D", "-N", values["host"])
        self._wait_until(lambda: "idle" in query("sinfo", "--noheader", "--format=%t"))

    def _daemon(self, *command: str) -> None:
        environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        with (self.folder / f"{command[0]}.log").open("w") as log:
            self.daemons.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            )

    def _wait_until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, f"Slurm does not get ready, see {self.folder}/*.log"
            time.sleep(0.1)


def query(*command: str) -> str:
    """Returns what a command of Slurm prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def free_port() -> int:
    """Returns a port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
