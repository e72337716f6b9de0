"""What is wrong with a set of hosts, each problem with its remedy."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ds_trainer.preflight.asking import Answer

_CLOCK_TOLERANCE_S = 5.0
_LEAST_FREE_BYTES = 2**30


@dataclass(frozen=True)
class Problem:
    """A reason why a job would fail or go wrong.

    Args:
        is_fatal: False for what only has to be known.
    """

    host: str
    what: str
    remedy: str
    is_fatal: bool = True


def problems_of(answers: Sequence[Answer]) -> list[Problem]:
    """All problems, those of a host together, in the order of the hosts."""
    silent = [
        Problem(answer.host, answer.error, "mend that first; `ssh HOST hostname` must work without a question")
        for answer in answers
        if answer.error is not None
    ]
    speaking = [answer for answer in answers if answer.error is None]
    rules = [rule for rule in RULES if rule is not disks or answers[0].error is None]  # runs lie on the master's
    found = silent + [problem for rule in rules for problem in rule(speaking)] if speaking else silent
    order = {answer.host: place for place, answer in enumerate(answers)}
    return sorted(found, key=lambda problem: order[problem.host])


def other_versions(answers: Sequence[Answer]) -> Iterator[Problem]:
    """Packages that differ from the first host's, or are missing."""
    first = answers[0]
    for answer in answers:
        for package, version in answer.says["versions"].items():
            expected = first.says["versions"][package]
            if version is None:
                yield Problem(answer.host, f"{package} is not installed", "run `make setup` there")
            elif version != expected:
                what = f"{package} {version}, but {expected} on {first.host}"
                yield Problem(answer.host, what, f"install {package}=={expected} there")


def other_files(answers: Sequence[Answer]) -> Iterator[Problem]:
    """Files that every rank reads and that are not the same everywhere."""
    first = answers[0]
    for answer in answers:
        for path, digest in answer.says["files"].items():
            if digest is None:
                yield Problem(answer.host, f"{path} is missing", "copy it there, to the same path")
            elif digest != first.says["files"][path] is not None:
                yield Problem(answer.host, f"{path} differs from the one on {first.host}", "copy it there")
        data = answer.says["data"]
        if data is None or data != first.says["data"]:
            what = "the data is missing" if data is None else f"the data differs from that on {first.host}"
            yield Problem(answer.host, what, "copy the data there, or use a shared disk")


def devices(answers: Sequence[Answer]) -> Iterator[Problem]:
    """More ranks than devices, or devices of two kinds."""
    first = answers[0]
    for answer in answers:
        gpus, cores = answer.says["gpus"], answer.says["cores"]
        if bool(gpus) != bool(first.says["gpus"]):
            what = f"{gpus or 'no'} GPUs, but {first.says['gpus'] or 'none'} on {first.host}"
            yield Problem(answer.host, what, "use hosts of one kind in a job")
        elif answer.slots > (gpus or cores):
            what = f"slots={answer.slots}, but {gpus or cores} {'GPUs' if gpus else 'cores'}"
            yield Problem(answer.host, what, "lower its slots", is_fatal=bool(gpus))  # cores can be shared, slowly


def network(answers: Sequence[Answer]) -> Iterator[Problem]:
    """Hosts that do not find the master, or whose own name means loopback, where gloo would listen."""
    if len(answers) < 2:
        return
    for answer in answers:
        master = answer.says["master"]  # which may have said nothing
        route, own = answer.says["route"], answer.says["own_name_address"]
        if route["address"] is None:
            what = f"cannot resolve {master} ({route['error']})"
            yield Problem(answer.host, what, f"add {master} to its /etc/hosts, or name it by address in the hostfile")
        elif own is None or own.startswith("127."):
            found, interface = own or "nothing", answer.says["interface_for_others"]
            what = f"its own name resolves to {found}"
            if interface is None:
                remedy = (
                    "write GLOO_SOCKET_IFNAME=NAME, of the interface to use, into .deepspeed_env, or mend /etc/hosts"
                )
                yield Problem(answer.host, f"{what}, and there is no single other interface", remedy)
            else:
                remedy = f"fine: the trainer listens on {interface}; GLOO_SOCKET_IFNAME in .deepspeed_env names another"
                yield Problem(answer.host, what, remedy, is_fatal=False)


def machines(answers: Sequence[Answer]) -> Iterator[Problem]:
    """A machine under two names, on which ranks would share devices; or two with one name, by which files are told."""
    first_of: dict[str, str] = {}
    for answer in answers:
        name = answer.says["name"]
        first = first_of.setdefault(name, answer.host)
        if first != answer.host:
            what = f"it calls itself {name}, as {first} does"
            remedy = "give a machine one line with all its slots, and two machines host names of their own"
            yield Problem(answer.host, what, remedy)


def clocks(answers: Sequence[Answer]) -> Iterator[Problem]:
    """Clocks far from this machine's: the times in logs and run directories would mislead."""
    for answer in answers:
        if answer.clock_offset_s is not None and abs(answer.clock_offset_s) > _CLOCK_TOLERANCE_S:
            what = f"its clock is {answer.clock_offset_s:+.0f} s off ours"
            yield Problem(answer.host, what, "set it, by NTP", is_fatal=False)


def disks(answers: Sequence[Answer]) -> Iterator[Problem]:
    """The master's disk cannot be written or is nearly full; or another host would not see the run."""
    first = answers[0]
    if not first.says["can_write"]:
        yield Problem(first.host, "the runs directory cannot be written", "choose another with --runs_dir")
    if first.says["free_bytes"] < _LEAST_FREE_BYTES:
        what = f"{first.says['free_bytes'] / 2**20:.0f} MiB free for runs"
        yield Problem(first.host, what, "make room, or choose another --runs_dir")
    for answer in answers[1:]:
        if answer.says["sees_token"] != first.says["sees_token"]:
            what = f"the runs directory is not the one of {first.host}"
            remedy = f"fine, as long as {first.host} stays first in the hostfile: resume points are on its disk"
            yield Problem(answer.host, what, remedy, is_fatal=False)


RULES: tuple[Callable[[Sequence[Answer]], Iterator[Problem]], ...] = (
    other_versions,
    other_files,
    devices,
    network,
    machines,
    clocks,
    disks,
)
