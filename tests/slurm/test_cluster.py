"""The Slurm of the tests starts only where it can and may."""

import cluster
import pytest

pytestmark = pytest.mark.slurm


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="no .*slurmctld.*apt-get install munge slurmctld"):
        cluster.Cluster(tmp_path).__enter__()


def test_a_slurm_of_the_machine_is_left_alone(tmp_path, monkeypatch):
    own = tmp_path / "slurm.conf"
    own.write_text("own")
    monkeypatch.setattr(cluster, "LINK", own)
    with pytest.raises(RuntimeError, match="this machine has a Slurm"):
        cluster.Cluster(tmp_path).__enter__()
    assert own.read_text() == "own"
