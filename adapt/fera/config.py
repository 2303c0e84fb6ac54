"""Settings of a FeRA adapter: everything that its gates need travels in `adapter_config.json`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from peft import PeftConfig
from torch import nn

from adapt.fera import checked
from adapt.fera.features import COLUMNS, TIMED, Floats, blind_statistics, statistics_of
from adapt.fera.noise import Clock
from adapt.fera.view import usual_grid
from spectra.bands import FilterBank
from spectra.errors import UserError

__all__ = ["DEFAULT_BANDS", "PEFT_TYPE", "FeraConfig", "blind_statistics", "config_from_json", "resolve"]
__all__ += ["router_shapes"]

PEFT_TYPE = "FERA"
DEFAULT_BANDS = 4
PUBLISHED_BANDS = 3
LEAST = {"r": 1, "num_experts": 1, "total_rank": 1, "shared_rank": 0, "bands": 1, "router_hidden": 1}
OPEN = ("r", "total_rank", "bands")  # whole numbers that may be left out
CHOICES = {"mode": ("exact", "published"), "gates": ("router", "uniform"), "expert": ("lora", "ia3", "dora", "loha")}


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass
class FeraConfig(PeftConfig):  # type: ignore[misc, unused-ignore]
    """Configuration of FeRA; complete without a prior.

    `num_experts` experts of rank `r` and an always-on part of rank `shared_rank` give an update of total rank
    `num_experts * r + shared_rank`; with uniform gates it is exactly LoRA of that rank with `lora_alpha = alpha`.
    `total_rank` may be given instead of `r`.  What is left as None is filled in for the model at injection: `grid` and
    `latent_argument` from the denoiser, `scales` as octaves on the grid, and `feature_mean`, `feature_std` from a model
    of pictures in noise.  `Prior.fera_config` fills them with measured values.

    In published mode the router reads plain shares of the bands of `adapt.fera.published`, whose scales follow the
    latent; `bands` is then 3 and `alpha` 1 where they are not given, as in the authors' code.

    Raises UserError where a value is out of range or two of them contradict each other.
    """

    r: int | None = field(default=None, metadata=_help("Rank of each expert; default 4, or from total_rank."))
    num_experts: int = field(default=3, metadata=_help("Number of experts."))
    total_rank: int | None = field(default=None, metadata=_help("Rank of the experts and the shared part together."))
    shared_rank: int = field(default=0, metadata=_help("Rank of a part that is always on, beside the experts."))
    expert: str = field(default="lora", metadata=_help("Kind of the experts: 'lora', 'ia3', 'dora' or 'loha'."))
    target_modules: list[str] | str | None = field(
        default=None, metadata=_help("Names, or endings of names, of Linear and Conv2d layers, or one regex.")
    )
    exclude_modules: list[str] | str | None = field(default=None, metadata=_help("Names to leave out."))
    alpha: float | None = field(default=None, metadata=_help("The update is scaled by alpha / total_rank."))
    dropout: float = field(default=0.0, metadata=_help("Dropout on the input of the experts."))
    mode: str = field(default="exact", metadata=_help("'exact', or 'published': the semantics of the paper's code."))
    bands: int | None = field(default=None, metadata=_help("Number of frequency bands."))
    scales: Floats | None = field(default=None, metadata=_help("Scales of the filter bank, in latent pixels."))
    grid: tuple[int, int] | None = field(default=None, metadata=_help("Height and width of the latent."))
    gates: str = field(default="router", metadata=_help("'router', or 'uniform': every gate is one, always."))
    features: tuple[str, ...] = field(
        default=("shares",),
        metadata=_help("What the router reads: 'shares' (log band shares), 'snr' (log band energy over that of the "
                       "noise alone), 'log_snr' (of the noise level)."),
    )  # fmt: skip
    feature_mean: Floats | None = field(default=None, metadata=_help("Mean of the features, in their order."))
    feature_std: Floats | None = field(default=None, metadata=_help("Deviation of the features, in their order."))
    noise_schedule: dict[str, Any] | None = field(
        default=None, metadata=_help("How a timestep tells the noise level; needed by 'snr' and 'log_snr'.")
    )
    tau: float = field(default=0.7, metadata=_help("Temperature of the gates."))
    router_hidden: int = field(default=64, metadata=_help("Hidden width of the router."))
    router_start: dict[str, Any] | None = field(
        default=None, metadata=_help("First weights of the router, w1 b1 w2 b2; None starts at random.")
    )
    latent_argument: str | None = field(default=None, metadata=_help("Argument of the denoiser that is the latent."))
    provenance: dict[str, Any] | None = field(default=None, metadata=_help("Where the prior came from."))

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.peft_type = PEFT_TYPE
        self._tidy()
        self._check_choices()
        self._share_rank()
        self._check_bands()
        self._check_features()
        self._check_start()

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON holds them; the router's start is left out, its weights are saved as tensors."""
        saved = dict(super().to_dict(), router_start=None)
        return {key: sorted(value) if isinstance(value, set) else value for key, value in saved.items()}

    @property
    def rank(self) -> int:
        """Rank of each expert."""
        assert self.r is not None
        return self.r

    @property
    def scaling(self) -> float:
        """Factor of the update, alpha over the total rank."""
        assert self.total_rank is not None
        return float(self.alpha or 0.0) / self.total_rank

    @property
    def feature_width(self) -> int:
        """How many numbers the router reads."""
        assert self.bands is not None
        return sum(1 if name == "log_snr" else self.bands for name in self.features)

    @property
    def timed(self) -> bool:
        """Whether the gates follow the noise level that a call is told."""
        return self.gates == "router" and any(name in TIMED for name in self.features)

    @property
    def bank(self) -> FilterBank:
        """The filter bank of a resolved configuration; in published mode octaves, for what needs exact bands."""
        if self.scales is not None:
            return FilterBank(self.scales)
        assert self.bands is not None
        assert self.grid is not None
        return FilterBank.octaves(self.bands, self.grid)

    def _share_rank(self) -> None:
        """Fill in whichever of `r` and `total_rank` was left out."""
        if self.r is None and self.total_rank is not None:
            self.r, rest = divmod(self.total_rank - self.shared_rank, self.num_experts)
            if rest or self.r < 1:
                raise UserError(
                    f"FeraConfig: a total rank of {self.total_rank} with {self.shared_rank} of it shared cannot be "
                    f"split evenly over {self.num_experts} experts"
                )
        self.r = 4 if self.r is None else self.r
        total = self.r * self.num_experts + self.shared_rank
        if self.total_rank not in (None, total):
            raise UserError(
                f"FeraConfig: r, num_experts and shared_rank make a total rank of {total}, not {self.total_rank}"
            )
        self.total_rank = total
        self.alpha = (1.0 if self.mode == "published" else float(total)) if self.alpha is None else self.alpha

    def _tidy(self) -> None:
        """Give every value its type, also those of JSON; UserError for one that cannot have it."""
        for name, least in LEAST.items():
            if not (name in OPEN and getattr(self, name) is None):
                setattr(self, name, checked.whole(name, getattr(self, name), least))
        for name in ("scales", "feature_mean", "feature_std"):
            setattr(self, name, checked.numbers(name, getattr(self, name)))
        self.tau, self.dropout = checked.number("tau", self.tau), checked.share("dropout", self.dropout)
        self.alpha = None if self.alpha is None else checked.number("alpha", self.alpha)
        self.features = checked.texts("features", self.features)
        self.grid = checked.grid(self.grid)
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):  # once each and in order: equal saves, equal bytes
                setattr(self, name, sorted(set(checked.texts(name, value))))

    def _check_choices(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                known = " or ".join(repr(choice) for choice in choices)
                raise UserError(f"FeraConfig: {name} is {known}, got {getattr(self, name)!r}")

    def _check_bands(self) -> None:
        if self.scales is not None:
            bank = FilterBank(self.scales)
            if self.bands not in (None, bank.bands):
                raise UserError(f"FeraConfig: {len(bank.scales)} scales make {bank.bands} bands, not {self.bands}")
            self.scales, self.bands = bank.scales, bank.bands
        usual = PUBLISHED_BANDS if self.mode == "published" else DEFAULT_BANDS
        self.bands = usual if self.bands is None else self.bands
        if self.bands < 2:
            raise UserError(f"FeraConfig: the router needs at least 2 bands to tell latents apart, got {self.bands}")

    def _check_features(self) -> None:
        unknown = [name for name in self.features if name not in COLUMNS]
        if unknown or not self.features or len(set(self.features)) < len(self.features):
            raise UserError(f"FeraConfig: features are some of {', '.join(COLUMNS)}, each once, got {self.features}")
        if self.mode == "published":
            self._check_published()
        if self.noise_schedule is not None:
            Clock.of(self.noise_schedule)
        elif self.timed:
            raise UserError(
                f"FeraConfig: features {self.features} need a noise_schedule; "
                "adapt.fera.noise.schedule_of(pipe.scheduler) gives it"
            )
        self._check_statistics()

    def _check_published(self) -> None:
        given = [name for name in ("scales", "feature_mean", "feature_std") if getattr(self, name) is not None]
        if given or self.features != ("shares",):
            what = " and ".join(given) or f"features={self.features}"
            raise UserError(f"FeraConfig: published mode reads plain shares of bands of its own; leave out {what}")

    def _check_statistics(self) -> None:
        for name in ("feature_mean", "feature_std"):
            values, width = getattr(self, name), self.feature_width
            if values is not None and (len(values) != width or not np.isfinite(values).all()):
                raise UserError(f"FeraConfig: {name} needs {width} finite numbers, one per feature, got {values}")
        if (self.feature_mean is None) != (self.feature_std is None):
            raise UserError("FeraConfig: feature_mean and feature_std belong together; give both or neither")
        if self.feature_mean is not None and self.scales is None and self.features != ("log_snr",):
            raise UserError("FeraConfig: feature_mean describes certain bands; give their scales too")
        if self.feature_std is not None and min(self.feature_std) <= 0:
            raise UserError(f"FeraConfig: feature_std is above 0 for every feature, got {self.feature_std}")

    def _check_start(self) -> None:
        if self.router_start is None:
            return
        assert self.bands is not None
        if self.gates == "uniform":
            raise UserError("FeraConfig: uniform gates have no router to start; leave out router_start")
        wanted = router_shapes(self.feature_width, self.router_hidden, self.num_experts)
        found = checked.shapes("router_start", self.router_start)
        if found != wanted:
            raise UserError(f"FeraConfig: router_start has shapes {found}, this router needs {wanted}")


def router_shapes(width: int, hidden: int, experts: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the router's weights, by name."""
    return {"w1": (hidden, width), "b1": (hidden,), "w2": (experts, hidden), "b2": (experts,)}


def config_from_json(saved: dict[str, Any], source: str) -> FeraConfig:
    """The configuration that a file holds; UserError for keys and values that this version does not know."""
    if saved.get("peft_type") != PEFT_TYPE:
        raise UserError(f"{source} describes a {saved.get('peft_type')!r} adapter, not FeRA: load it with peft")
    known = {item.name for item in fields(FeraConfig)}
    unknown = sorted(set(saved) - known)
    if unknown:
        guess = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" (did you mean {guess[0]!r}?)" if guess else ""
        raise UserError(f"{source} has unknown settings {', '.join(unknown)}{hint}; it may need a newer version")
    try:
        return FeraConfig(**saved)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def resolve(config: FeraConfig, model: nn.Module) -> FeraConfig:
    """A copy of `config` with everything filled in that depends on the denoiser.

    Raises:
        UserError: neither the configuration nor the denoiser says how large the latents are.
    """
    grid = config.grid or usual_grid(model)
    if grid is None:
        raise UserError(
            f"{type(model).__name__} does not say how large its latents are: "
            "give FeraConfig(grid=(height, width)) in latent pixels"
        )
    if config.mode == "published":
        return replace(config, grid=grid)
    assert config.bands is not None
    bank = FilterBank.octaves(config.bands, grid) if config.scales is None else FilterBank(config.scales)
    mean, std = config.feature_mean, config.feature_std
    if (mean is None or std is None) and config.gates == "router":
        clock = Clock.of(config.noise_schedule) if config.timed and config.noise_schedule is not None else None
        mean, std = statistics_of(config.features, bank, grid, clock)
    return replace(config, grid=grid, scales=bank.scales, bands=bank.bands, feature_mean=mean, feature_std=std)
