"""The parts of a run's configuration, by subject; `adapt.config.TrainConfig` puts them together."""

from adapt.settings.data import DataSettings
from adapt.settings.measure import MeasureSettings
from adapt.settings.method import MethodSettings
from adapt.settings.objective import ObjectiveSettings
from adapt.settings.optimise import OptimiseSettings
from adapt.settings.run import RunSettings

__all__ = [
    "DataSettings",
    "MeasureSettings",
    "MethodSettings",
    "ObjectiveSettings",
    "OptimiseSettings",
    "RunSettings",
]
