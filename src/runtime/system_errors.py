"""What the operating system or a library says is wrong, in words for the middle of a sentence."""

import errno

WORDS = {
    errno.ENOENT: "it does not exist",
    errno.EACCES: "permission denied",
    errno.EPERM: "the system does not allow it",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "part of its path is a file, not a folder",
    errno.EEXIST: "it already exists",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EFBIG: "the file would be larger than the system allows",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.ENAMETOOLONG: "its name is too long",
    errno.ELOOP: "its symbolic links form a loop",
    errno.EIO: "the disk reported an error",
    errno.ESTALE: "the network drive has changed or is no longer there",
    errno.ENOMEM: "out of memory",
}


def in_words(error: Exception) -> str:
    """Why something failed, in one line: what the system's number of an error means, else what the library says."""
    if isinstance(cause := getattr(error, "reason", None), OSError):  # of a URLError
        return in_words(cause)
    if isinstance(error, OSError) and error.strerror:
        return WORDS.get(error.errno or 0, error.strerror)
    return " ".join(str(error).split()) or type(error).__name__
