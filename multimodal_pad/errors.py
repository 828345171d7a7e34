"""Errors and warnings by kind. Each message says what was got, what is allowed, and what to do."""


class PaddingError(ValueError):
    """The base of every error that this package raises about its input."""


class LengthError(PaddingError):
    """A length table or an edge list is not usable: empty, negative, not whole, misnamed."""


class UncoveredLengthError(LengthError):
    """A sample is longer than every bucket of the policy."""


class SampleError(PaddingError):
    """A sample does not fit the others: a missing modality key, another width, rank or dtype."""


class StreamTimeoutError(SampleError):
    """A stream did not give its next sample in time."""


class SourceError(PaddingError):
    """A dataset on disk is not of its format (names the file and the line)."""


class TrainingError(PaddingError):
    """Training cannot go on: the loss stopped being a number, or an option makes no sense."""


class ServingError(PaddingError):
    """A request can't be served: the server is closed, or the batch that the request was in has failed."""


class QueueFullError(ServingError):
    """As many requests wait already as the server's queue holds."""


class PlanError(PaddingError):
    """A shape plan cannot be made, or a plan file is not one that this version reads."""


class CompileError(PaddingError):
    """A program would be compiled where nothing may."""


class UnplannedShapeError(CompileError):
    """A batch has a shape that its step table was not warmed up for."""


class StepMismatchError(CompileError, TypeError):
    """A state or a batch has another structure, or arrays of other shapes or dtypes, than its step was compiled for."""


class CheckpointWarning(UserWarning):
    """A checkpoint is damaged or unfinished, and another is taken instead; or it has no description of its training."""


class CalibrationWarning(UserWarning):
    """Measurements on a device can't be read or kept, and are made anew."""


class CompilerOptionWarning(UserWarning):
    """A compiler option that was given does not hold: this version of XLA does not have it, or XLA_FLAGS sets it."""


class PlanWarning(UserWarning):
    """A shape plan does not fit: it serves other lengths than its own much worse, or a batch has none of its shapes."""
