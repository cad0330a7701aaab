"""What sets two runs of one name apart is read off their configs."""

import json

from ttsadapt.reports.settings import differences, settings


def config(path, **changes):
    plain = {
        "seed": 0,
        "study": "s",
        "optimizer": {"lr": 1e-4},
        "data": {"room": {"_target_": "a.Clean"}},
        "trainer": {"devices": 1, "max_steps": 9},
    }
    path.write_text(json.dumps(plain | changes))
    return settings(path)


def test_seeds_and_machines_set_nothing_apart(tmp_path):
    one = config(tmp_path / "a.yaml")
    assert one == config(tmp_path / "b.yaml", seed=3, study="t", trainer={"devices": 4, "max_steps": 9})
    assert differences([one, one]) == ["", ""]


def test_a_value_and_a_class(tmp_path):
    clean = config(tmp_path / "a.yaml")
    noisy = config(tmp_path / "b.yaml", data={"room": {"_target_": "a.Noise", "snr": 20}}, optimizer={"lr": 1e-3})
    assert differences([clean, noisy]) == ["optimizer.lr=0.0001, data.room=Clean", "optimizer.lr=0.001, data.room=Noise"]


def test_many_are_counted():
    one, other = ({str(i): str(i + plus) for i in range(9)} for plus in (0, 1))
    assert differences([one, other])[0] == "0=0, 1=1, 2=2, 3=3, 5 more"
