import struct

import numpy as np
import pytest
import tensorflow as tf

from modules.optimization import Schedule, learning_rate
from pipelines.plots import BLOCKS, lengths_png, sampled_steps, schedule_png, schedule_text


def test_the_plot_of_a_schedule_is_exact():
    # Rates 1, 2, 3, 4, then 4, 3, 2, 1 quarters of the peak: one line of the plot each.
    assert schedule_text(Schedule(2e-4, 8, 4, "linear"), steps_per_epoch=4, width=8, height=4) == """\
2.0e-04 ┤   ██
        │  ████
1.0e-04 ┤ ██████
        │████████
      0 └┴───┴──┴
         0   4  8 steps"""


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_what_is_plotted_is_what_training_uses(kind):
    schedule, width, height = Schedule(3e-5, 1000, 100, kind), 64, 8
    lines = schedule_text(schedule, 250, width, height).splitlines()
    columns = [line[len("3.0e-05 ┤"):].ljust(width) for line in lines[:height]]
    plotted = [sum(BLOCKS.index(line[place]) for line in columns) / 8 / height for place in range(width)]
    steps = sampled_steps(1000, width)
    assert (steps[0], steps[-1]) == (0, 999)
    rates = [float(learning_rate(tf.constant(step), 3e-5, 1000, 100, kind)) / 3e-5 for step in steps]
    # To an eighth of a character; what is more than nothing shows.
    assert plotted == pytest.approx(rates, abs=1 / 8 / height + 1e-3)
    assert lines[-1].split() == ["0", "250", "500", "750", "1000", "steps"]


def test_one_epoch_is_marked_in_quarters_and_many_are_thinned():
    assert schedule_text(Schedule(1e-4, 40, 4, "linear"), 40).splitlines()[-1].split()[:-1] == "0 10 20 30 40".split()
    assert schedule_text(Schedule(1e-4, 1200, 4, "linear"), 100).splitlines()[-1].split()[:-1] == [
        "0", "200", "400", "600", "800", "1000", "1200"]
    assert schedule_text(Schedule(1e-4, 1, 0, "linear"), 1).splitlines()[-1].split()[:-1] == ["0", "1"]


def test_plots_are_png_files_of_one_size(tmp_path):
    schedule_png(Schedule(1e-4, 300, 30, "cosine"), 100, tmp_path / "learning_rate.png")
    lengths_png({"texts": np.array([5, 6, 6, 7, 300])}, 128, "model.max_length", "are cut", tmp_path / "lengths.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["learning_rate.png", "lengths.png"]
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n" and content[12:16] == b"IHDR"
        assert struct.unpack(">II", content[16:24]) == (1200, 600)
        assert len(content) > 10_000   # Not an empty canvas.
