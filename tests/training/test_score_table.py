"""The figure: an SVG that any browser opens, with a bar for every score."""

from __future__ import annotations

from xml.etree import ElementTree

from minddiffuser.training.score_table import figure, remark, table
from minddiffuser.training.scores import FeatureScores, Score, Scores, SelectionScores

SVG = "{http://www.w3.org/2000/svg}"


def test_every_score_has_a_bar_and_a_number() -> None:
    rois = {"V1 <left> & 'right'": Score(10, 0.125, 0.001, 0.25), "LO": Score(20, -0.3, 0.0, 0.05)}
    features = {
        "context": FeatureScores(100, 100, Score(30, 0.5, 0.0, 0.0625), rois),
        "latent": FeatureScores(1000, 256, Score(30, 0.25, 0.0, 0.0625), rois),
    }
    root = ElementTree.fromstring(figure(Scores(5, 100, features, SelectionScores(0.1, 0.2, 0.1, "ridge"))))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"context", "latent", "all", "LO", "0.500", "0.250", "-0.300"} <= set(texts)
    assert "V1 <left> & 'r" in texts
    bars = [float(bar.get("width", 0)) for bar in root.iter(f"{SVG}rect") if bar.get("fill") == "#31688e"]
    assert len(bars) == 6
    widest = max(bars)
    assert [round(bar / widest, 2) for bar in bars] == [1.0, 0.25, 0.0, 0.5, 0.25, 0.0]
    for bar in root.iter(f"{SVG}rect"):
        assert 0 <= float(bar.get("x", 0)) <= float(root.get("width", 0))


def test_a_simulated_subject_is_called_so() -> None:
    features = {"context": FeatureScores(100, 100, Score(30, 0.5, 0.0, 0.0625), {})}
    scores = Scores(5, 100, features, SelectionScores(0.1, 0.2, 0.1, "ridge"))
    circular, own = "early areas are read-outs of the same CLIP layers", "nothing of the networks decoded here"
    simulated = {"kind": "simulated fMRI"}
    for provenance, said in (
        (simulated, circular),
        ({**simulated, "brain": "clip"}, circular),
        ({**simulated, "brain": "gabor"}, own),
        ({"kind": "NSD"}, None),
        ({}, None),
        (None, None),
    ):
        for words in (circular, own):
            assert (words in table(scores, remark(provenance))) is (words == said)
            assert (words in figure(scores, remark(provenance))) is (words == said)
    assert remark({**simulated, "brain": "jelly"}) == "simulated subject"
