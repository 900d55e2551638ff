import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.refine.choose import chosen


def test_an_unknown_setting_is_one_sentence_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="^setting .foo. is unknown: choose one of .*candidates.*learning_rate"):
        chosen("default", None, {"foo": 1})
