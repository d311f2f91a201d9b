"""Errors that a caller can act on. Each message names the file and key, and says what to do."""


class VisaeError(Exception):
    """Base of every error that visae raises on purpose."""


class ConfigError(VisaeError):
    """The configuration has an unknown key, a value out of range, or names that do not exist."""


class DataError(VisaeError):
    """Pictures, masks or labels are missing, damaged or do not fit together."""


class ModelError(VisaeError):
    """A model, its weights or one of its layers is not what was asked for."""


class StoreError(VisaeError):
    """An activation store is incomplete, altered, or was made from something else."""


class TrainingError(VisaeError):
    """Training cannot go on: a loss that is not a number, a checkpoint of something else."""


class LaunchError(VisaeError):
    """Slurm refused a job, never started it, or it failed for good."""
