"""What the system says, in words."""

from urllib.error import URLError

import pytest

from src.runtime.system_errors import in_words


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "a.csv"), "the disk is full"),
        (IsADirectoryError(21, "Is a directory"), "it is a folder"),
        (OSError(999, "Something rare"), "Something rare"),
        (OSError("image file is\ntruncated"), "image file is truncated"),
        (URLError(OSError(111, "Connection refused")), "Connection refused"),
        (NotImplementedError(), "NotImplementedError"),
    ],
)
def test_a_reason_has_neither_a_number_nor_a_second_line(error, said):
    assert in_words(error) == said
