from pathlib import Path

import pytest
from judge_runs import write_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that tests read and never change."""
    return write_run(tmp_path_factory.mktemp("judge") / "run")
