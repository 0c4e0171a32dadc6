"""Composes a configuration as Hydra will, and reports every override that cannot be applied, not the first alone.

The command is composed as a whole. Only if that fails are the overrides applied one by one: each that fails becomes a
fault and is replaced by the nearest valid one, so that the overrides after it are judged in the intended configuration.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig

from project.command_line.misspelling import explain, keys_of, malformed
from project.spec.fault import Fault

_GUESSES = 3  # corrections of one override: of a group's name, of its choice, and of a missing plus sign


@dataclass(frozen=True)
class Composed:
    """A composed configuration. `cfg` has Hydra's own section too. `lost` names the groups and keys whose intended
    value is unknown or a guess, so that faults of what depends on them are not reported.
    """

    cfg: DictConfig
    faults: list[Fault]
    lost: frozenset[str] = frozenset()


def compose_or_explain(config_dir: Path, config_name: str, overrides: Sequence[str]) -> Composed:
    """Composes one job.

    Raises:
        HydraException: where the configuration files cannot be composed, even without an override.
    """
    with initialize_config_dir(str(config_dir), job_name=config_name, version_base="1.3"):
        whole = _attempt(config_name, overrides)
        return Composed(whole, []) if isinstance(whole, DictConfig) else _one_by_one(config_name, overrides, whole)


def compose_or_explain_sweep(config_dir: Path, config_name: str, overrides: Sequence[str]) -> Composed:
    """Composes each choice of a sweep with the first values of all other swept keys: as many configurations as there
    are choices, not as there are jobs. Keys with plain values are composed once, for a key's name does not depend on
    its value. `cfg` is the first job's.
    """
    with initialize_config_dir(str(config_dir), job_name=config_name, version_base="1.3"):
        values = [jobs for override in overrides if (jobs := _sweep_values(override))]
        choices = [i for i, jobs in enumerate(values) if len(jobs) > 1 and _options(_parse(jobs[0]))]
    first = [jobs[0] for jobs in values]
    others = [[*first[:i], job, *first[i + 1 :]] for i in choices for job in values[i][1:]]
    composed = [compose_or_explain(config_dir, config_name, job) for job in (first, *others)]
    faults = dict.fromkeys(fault for job in composed for fault in job.faults)
    return Composed(composed[0].cfg, list(faults), frozenset[str]().union(*(job.lost for job in composed)))


def _loader() -> ConfigLoader:
    return GlobalHydra.instance().config_loader()


def _parse(override: str) -> Override:
    return OverridesParser.create(config_loader=_loader()).parse_overrides([override])[0]


def _sweep_values(override: str) -> list[str]:
    """The override once for each of its values; empty for a continuous range, which only an optimizing sweeper uses."""
    try:
        parsed = _parse(override)
    except OverrideParseException:
        return [override]
    if not parsed.is_sweep_override():
        return [override]
    key = parsed.get_key_element()
    return [f"{key}={value}" for value in parsed.sweep_string_iterator()] if parsed.is_discrete_sweep() else []


def _attempt(config_name: str, overrides: Sequence[str]) -> DictConfig | Exception:
    try:
        cfg = compose(config_name, list(overrides), return_hydra_config=True)
    except Exception as error:  # of any kind: Hydra trips over numbers, lists and nulls where a choice belongs
        return error
    # Hydra skips a choice that does not exist where the defaults list calls its group optional.
    for override in map(_parse, overrides):
        choice, options = override.value(), _options(override, [text for text in overrides if _adds_folders(text)])
        if options and isinstance(choice, str) and "/" not in choice and choice not in options:
            return HydraException(f"{override.key_or_group} has no {choice}")
    return cfg


def _options(override: Override, folders: Sequence[str] = ()) -> list[str]:
    """Choices of the override's group, in the given folders too (`hydra.searchpath=...`); none if it is no group."""
    group = override.key_or_group
    return [] if "." in group else _loader().get_group_options(group, overrides=list(folders))


def _adds_folders(override: str) -> bool:
    return override.startswith("hydra.searchpath=")


class _Repair:
    """Overrides applied one after the other: the accepted ones, and the faults of all others."""

    def __init__(self, config_name: str) -> None:
        self.config_name = config_name
        self.accepted: list[str] = []
        self.cfg = compose(config_name, return_hydra_config=True)
        self.is_composed = True  # whether `cfg` has all that was accepted
        self.faults: list[Fault] = []
        self.lost: list[str] = []
        self.guessed: list[str] = []  # groups whose choice is a guess, which nobody typed

    def read(self, overrides: Sequence[str]) -> list[Override]:
        """Parses the overrides and sorts them as Hydra applies them: search paths, choices, values. New keys come last:
        no other key is taken for a misspelling of one.
        """
        parsed = []
        for text in overrides:
            try:
                parsed.append(_parse(text))
            except OverrideParseException as unreadable:
                self.faults.append(malformed(text, unreadable))
                self.lost.append(text.partition("=")[0].lstrip("+~"))
        rank = lambda o: (not _adds_folders(o.input_line), not _options(o), o.is_add() or o.is_force_add())  # noqa: E731
        return sorted(parsed, key=rank)

    def apply(self, override: Override, taken: set[str]) -> None:
        """Composes with the override, or with the nearest valid one. `taken` are the keys of the other overrides, which
        are no candidates for a misspelt key."""
        for _ in range(_GUESSES):
            assert override.input_line is not None
            outcome = _attempt(self.config_name, [*self.accepted, override.input_line])
            if isinstance(outcome, DictConfig):
                self.accepted.append(override.input_line)
                self.cfg, self.is_composed = outcome, True
                return
            fault, guess = explain(override, self.cfg, _loader(), outcome)
            self.faults.append(fault)
            if guess is None or _parse(guess).key_or_group in taken:
                break
            guessed = _parse(guess)
            if _options(guessed) and guessed.value() != override.value():
                self.guessed.append(guessed.key_or_group)
            override = guessed
        if _options(override):
            self.lost.append(override.key_or_group)

    def trust(self, override: Override) -> None:
        self.accepted.append(override.input_line or "")
        self.is_composed = False

    def is_plain(self, override: Override, keys: set[str]) -> bool:
        """True if the override gives a value to a key that exists: it can hardly fail, so that composing can wait."""
        changes = override.type is OverrideType.CHANGE and not override.is_sweep_override()
        return changes and not _options(override) and override.key_or_group in keys


def _one_by_one(config_name: str, overrides: Sequence[str], error: Exception, trusting: bool = True) -> Composed:
    """Applies the overrides in turn. `trusting` accepts those that hardly can fail without composing for each."""
    repair = _Repair(config_name)
    parsed = repair.read(overrides)
    keys: set[str] | None = None
    for override in parsed:
        key = override.key_or_group
        if any(key.startswith(f"{group}.") for group in repair.lost):
            continue  # the key's section depends on a choice that is unknown
        if keys is None and not _options(override):
            keys = set(keys_of(repair.cfg))  # all choices have been made
        if trusting and keys is not None and repair.is_plain(override, keys):
            repair.trust(override)
        else:
            repair.apply(override, {other.key_or_group for other in parsed if other is not override})
    whole = repair.cfg if repair.is_composed else _attempt(config_name, repair.accepted)
    if isinstance(whole, DictConfig) and repair.faults:
        return Composed(whole, repair.faults, frozenset([*repair.lost, *repair.guessed]))
    if trusting:  # one that was trusted fails, as a value of the wrong type for one of Hydra's own keys does
        return _one_by_one(config_name, overrides, error, trusting=False)
    return Composed(repair.cfg, repair.faults or [Fault("overrides", " ".join(overrides), str(error))])
