"""What sets two runs of one name apart is read off their configs."""

import json

from ttsadapt.reports.settings import counting, differences, settings


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


def test_brief_names_are_the_ends_that_no_other_has():
    one = {"optimizer.lr": "0.1", "strategy.lora.lr": "1", "data.emotions": "['sad', 'happy']"}
    other = dict.fromkeys(one, "null")
    assert differences([one, other], brief=True)[0] == "optimizer.lr=0.1, lora.lr=1, emotions=[sad, happy]"
    assert differences([{"a.lr": "1", "lr": "2"}, {"a.lr": "2", "lr": "1"}], brief=True)[0] == "a.lr=1, lr=2"


def test_many_are_counted():
    one, other = ({str(i): str(i + plus) for i in range(9)} for plus in (0, 1))
    assert differences([one, other])[0] == "0=0, 1=1, 2=2, 3=3, 5 more"


def test_labels_are_never_cut_so_short_that_two_are_the_same():
    plain = {str(i): "0" for i in range(6)}
    found = differences([plain, plain | {"5": "1"}, {str(i): "1" for i in range(6)}])
    assert len(set(found)) == 3 and found[1] == "0=0, 1=0, 2=0, 3=0, 4=0, 5=1"


def test_settings_are_listed_as_one_counts():
    found = ["rank=16, lr=0.001", "rank=8, lr=1e-05", "rank=8, lr=0.0001", "", "rank=null"]
    assert sorted(found, key=counting) == ["", "rank=8, lr=1e-05", "rank=8, lr=0.0001", "rank=16, lr=0.001", "rank=null"]
