import io

from minddiffuser.runtime.batch.ticker import Ticker


def test_the_line_speaks_of_images_rate_and_time_left() -> None:
    now = [100.0]
    stream = io.StringIO()
    ticker = Ticker(4, 2, 10, stream=stream, clock=lambda: now[0])
    ticker.images(2)
    now[0] = 110.0
    for _ in range(5):
        ticker.step(2, "stage 2 3/8")
    # 10 of the 20 steps that are left took 10 s: one image's worth.
    assert ticker.line(now[0]) == "reconstructing: 3/4 images (75 %), 0.1 images/s, 10 s left, stage 2 3/8"
    now[0] = 120.0
    ticker.images(4)
    ticker.close()
    assert stream.getvalue().splitlines()[-1] == "reconstructing: 4/4 images (100 %), 0.1 images/s, took 20 s"
