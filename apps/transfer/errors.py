"""What a job or a command of this app says when it ends without success."""


class TransferError(Exception):
    """A failure that a person can do something about; the message is one sentence or two, for people."""
