"""Clusters of machines that AWS, Google Cloud or Azure lends, by Ray's cluster launcher."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import ipaddress
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dlsys.cluster.commands import answers, find, follow, run, ssh_command, ssh_tunnel
from dlsys.cluster.launcher import launcher
from dlsys.cluster.places import ClusterPaths, Endpoint
from dlsys.cluster.provider import DESK_PORT, Finding, cluster_text
from dlsys.errors import DlsysError, RunError, UsageError
from dlsys.spec import yaml
from dlsys.spec.cluster.providers import Cloud

# Seconds until the queue of jobs must answer, once Ray's launcher is done.
PATIENCE = 120.0

# What `ray get-head-ip` says before there is a head; Azure, before there is a resource group.
_ABSENT = r"Head node of cluster .* not found|could not be found"
# Each cloud's modules that Ray imports, and how to get them.
_SDKS = {
    "aws": (["boto3"], "pip install boto3"),
    "gcp": (["googleapiclient", "google.auth"], "pip install google-api-python-client google-auth"),
    "azure": (
        ["azure.identity", "azure.mgmt.compute", "azure.mgmt.network", "azure.mgmt.resource"],
        "pip install azure-cli-core azure-identity azure-mgmt-compute azure-mgmt-network "
        "'azure-mgmt-resource<25'",
    ),
}
_LOG_IN = {
    "aws": "aws configure, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gcp": "gcloud auth application-default login",
    "azure": "az login",
}


class CloudProvider:
    """Machines of a cloud; the queue of jobs runs on the head and is reached by ssh.

    Args:
        cluster: what it is to be.
        paths: its files on this machine.
    """

    def __init__(self, cluster: Cloud, paths: ClusterPaths) -> None:
        self._cluster = cluster
        self._paths = paths

    def render(self) -> dict[str, str]:
        source = self._paths.launch / "cluster.yaml"
        return {
            "ray.yaml": yaml.dump(launcher(self._cluster, self._paths.token, source)),
            "cluster.yaml": cluster_text(self._cluster),
        }

    def up(self, say: Callable[[str], None]) -> None:
        self._paths.make()
        ours = self._file.exists()
        for name, text in self.render().items():
            (self._paths.launch / name).write_text(text, encoding="utf-8")
        try:
            up = self._seek() is not None
            if up and not ours:
                raise UsageError(
                    f"name: a cluster {self._cluster.name!r} is up in {self._cluster.region}, and was not "
                    "brought up from here",
                    hint="Take another name.",
                )
        except DlsysError:
            if not ours:
                self._file.unlink()
            raise
        self._paths.source.write_text(cluster_text(self._cluster), encoding="utf-8")
        if not up:
            self._known_hosts.unlink(missing_ok=True)
        # A head that is up goes on with its jobs: only a new one starts Ray.
        running = ["--no-restart"] if up else []
        self._launch("up", "--no-config-cache", *running, str(self._file), say=say)
        say("waiting for the queue of jobs")
        with self.connect() as endpoint:
            deadline = time.monotonic() + PATIENCE
            while not answers(endpoint.url):
                if time.monotonic() > deadline:
                    raise RunError(
                        f"the queue of jobs does not answer on the head of {self._cluster.name}",
                        hint=f"Its log is desk.log in the cluster's folder there: ray attach {self._file}",
                    )
                time.sleep(1)

    def down(self, say: Callable[[str], None]) -> None:
        if not self._file.exists():
            say(f"nothing of cluster {self._cluster.name} was made from here")
            return
        self._launch("down", str(self._file), say=say)
        shutil.rmtree(self._paths.root)

    def alive(self) -> bool:
        try:
            return self._seek() is not None
        except DlsysError:
            return False

    @contextlib.contextmanager
    def connect(self) -> Iterator[Endpoint]:
        head = self._seek()
        if head is None:
            raise RunError(
                f"cluster {self._cluster.name} is not up, or was brought up from elsewhere",
                hint="Bring it up: dlsys cluster up FILE",
            )
        ssh = ssh_command(user=self._cluster.user, keys=_keys(self._cluster), known_hosts=self._known_hosts)
        with ssh_tunnel(ssh, head, DESK_PORT) as port:
            yield Endpoint(f"http://127.0.0.1:{port}", self._paths.read_token())

    def doctor(self) -> Iterator[Finding]:
        cloud = self._cluster.provider
        modules, mend = _SDKS[cloud]
        missing = [module for module in modules if not _importable(module)]
        if missing:
            yield Finding(False, f"Ray needs {', '.join(missing)} for {cloud}", mend)
        else:
            yield Finding(True, f"{cloud}: Ray has the modules that it needs")
            found = _has_credentials(cloud)
            what = f"{cloud}: {'credentials are there' if found else 'no credentials'}"
            yield Finding(found, what, "" if found else _LOG_IN[cloud])
        for program in ("ray", "ssh", "rsync"):
            there = _installed(program)
            yield Finding(
                there, f"{program} is {'installed' if there else 'missing'}", "" if there else "Install it."
            )
        if self._cluster.image is None:
            what = f"image: Ray's own choice for {cloud} has Python 3.10 or older, and dlsys needs 3.11"
            yield Finding(False, what, "Name an image with a newer Python, or install one in `setup`.")
        if not self._file.exists():
            return
        try:
            with self.connect() as endpoint:
                up = answers(endpoint.url)
        except DlsysError as error:
            yield Finding(False, f"the head cannot be reached: {error}", error.hint)
            return
        yield Finding(up, f"the queue of jobs {'answers' if up else 'does not answer'}")

    @property
    def _file(self) -> Path:
        return self._paths.launch / "ray.yaml"

    @property
    def _known_hosts(self) -> Path:
        return self._paths.launch / "known_hosts"

    def _launch(self, verb: str, *arguments: str, say: Callable[[str], None]) -> None:
        log = self._paths.logs / f"{verb}.log"
        say(f"ray {verb}: its output goes to {log}")
        # Usage statistics would be asked about, and then be on, on the head too.
        follow([_ray(), verb, "-y", *arguments], log, say, env={"RAY_USAGE_STATS_ENABLED": "0"})

    def _seek(self) -> str | None:
        """The address of a head that is set up; None where there is no such head."""
        if not self._file.exists():
            return None
        try:
            mend = "What is missing says: dlsys cluster doctor FILE"
            said = run([_ray(), "get-head-ip", str(self._file)], timeout=300, hints={"": mend})
        except RunError as error:
            if re.search(_ABSENT, str(error)):
                return None
            raise
        for line in reversed(said.splitlines()):
            with contextlib.suppress(ValueError):
                return str(ipaddress.ip_address(line.strip()))
        raise RunError(f"ray get-head-ip gave no address: {said.strip()[-200:]!r}")


def _ray() -> str:
    return find("ray", 'Install it: pip install "ray[default]"')


def _keys(cluster: Cloud) -> list[Path]:
    """The private keys that Ray's launcher has made for this region, project and user, in its order.

    Ray's own commands find theirs by setting up the cloud once more, roles and networks included.
    """
    region, project, user = map(glob.escape, (cluster.region, cluster.project or "", cluster.user))
    pattern = {
        "aws": f"ray-autoscaler_*{region}.pem",
        "gcp": f"ray-autoscaler_gcp_{region}_{project}_{user}_[0-9]",
        "azure": f"ray-autoscaler_azure_{region}_{project}_{user}",
    }[cluster.provider]
    found = sorted(Path.home().joinpath(".ssh").glob(pattern), key=lambda path: (len(path.name), path.name))
    # A server ends the connection after some keys that it does not know.
    return found[:5]


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _installed(program: str) -> bool:
    try:
        find(program, "")
    except DlsysError:
        return False
    return True


def _has_credentials(cloud: str) -> bool:
    """Whether the cloud's own library finds some; they are not tried."""
    if cloud == "aws":
        import boto3

        return boto3.Session().get_credentials() is not None
    if cloud == "gcp":
        import google.auth

        try:
            google.auth.default()
        except google.auth.exceptions.DefaultCredentialsError:
            return False
        return True
    try:
        run([find("az", _LOG_IN["azure"]), "account", "show"])
    except DlsysError:
        return False
    return True
