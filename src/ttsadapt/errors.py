"""What a user did wrong, in one line."""


class UserError(Exception):
    """A failure that the user can cure: says what is wrong, where (file, key, line), and what to do, in one line."""


class ConfigError(UserError):
    """The composed config is wrong."""


class DataError(UserError):
    """A recording, a transcript or a manifest is wrong."""


class TooLong(DataError):
    """An utterance is longer than the model takes: it is left out and counted."""


class CheckpointError(UserError):
    """A checkpoint is corrupt, foreign, or belongs to another base."""
