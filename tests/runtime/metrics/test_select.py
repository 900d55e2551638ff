import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.metrics import METRICS
from minddiffuser.runtime.metrics.select import GROUPS, STANDARD, select, select_for_run


def names(asked: str | None) -> list[str]:
    return [metric.name for metric in select(asked)]


def test_nobody_asks() -> None:
    assert names(None) == names("default") == [name for name, metric in METRICS.items() if metric.default]
    assert not {"alexnet2", "pixcorr_aliased", "lpips"} & set(names(None))


def test_names_and_groups_each_once_in_their_order() -> None:
    assert names("swav, standard,pixcorr") == ["swav", *(name for name in STANDARD if name != "swav")]
    assert names("all") == list(METRICS)
    assert [metric.name for metric in select(["ssim", "lpips"])] == ["ssim", "lpips"]


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_has_the_eight_columns(group: str) -> None:
    bases = [name.split("_aliased")[0].split("_pil")[0] for name in names(group)]
    assert [{"ssim_columns": "ssim", "effnet_v1": "effnet"}.get(name, name) for name in bases] == list(STANDARD)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("alexnet_2", "did you mean alexnet2"),
        ("", "metric '' is unknown"),
        ("pixcorr,,ssim", "metric '' is unknown"),
        ("retrieval", "of decoded features"),
        ([], "no metric is named"),
    ],
)
def test_other_names_are_refused(asked: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        select(asked)


def test_a_run_knows_decoded_features_too() -> None:
    found = select_for_run("pixcorr,dimension")
    assert [metric.name for metric in found.metrics] == ["pixcorr"]
    assert found.decoded == ("dimension",)
    assert select_for_run("decoded").metrics == ()
    assert select_for_run("decoded").decoded == ("retrieval", "dimension")
    assert select_for_run("all").decoded == ("retrieval", "dimension")
    assert len(select_for_run("all").metrics) == len(METRICS)
    assert select_for_run().decoded == ()
    with pytest.raises(InputError, match="did you mean pixcorr"):
        select_for_run("decoded,pixcor")
    with pytest.raises(InputError, match="no metric is named"):
        select_for_run([])
