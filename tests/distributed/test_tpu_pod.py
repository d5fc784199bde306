"""launch/tpu_pod.sh, with a stand-in for gcloud."""

import pytest

from promptmad_jax.runtime.process_exit import USER_ERROR_STATUS
from tests.distributed.launching import calls, launch
from tests.distributed.processes import ROOT

# The state of the request, one line a query; the training ends with the statuses in turn.
GCLOUD = """
take() { head -n 1 "$1"; [[ "$(wc -l < "$1")" -le 1 ]] || sed -i 1d "$1"; }
case "$*" in
  *describe*) state="$(take "$STATES")"; [[ "$state" != NONE ]] || exit 1; echo "$state" ;;
  *promptmad_jax.train*) exit "$(take "$STATUSES")" ;;
esac
"""


def tpu(stand_in, tmp_path, states, statuses, *arguments, **environment):
    stand_in("gcloud", GCLOUD)
    (tmp_path / "states").write_text("\n".join(states) + "\n")
    (tmp_path / "statuses").write_text("\n".join(map(str, statuses)) + "\n")
    environment |= {"TPU_NAME": "pod", "TPU_ZONE": "zone-a", "TPU_POLL_SECONDS": "0"}
    environment |= {name: str(tmp_path / name.lower()) for name in ("STATES", "STATUSES")}
    done = launch("tpu_pod.sh", *arguments, **environment)
    made = [call for call in calls(tmp_path) if "describe" not in call]
    return done, [call.removeprefix("gcloud compute tpus ") for call in made]


def test_tpu_asks_installs_and_trains_on_all_hosts(stand_in, tmp_path):
    states = ["NONE", "WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "ACTIVE"]
    arguments = ("all", "--", "--config=x.py", "--config.data.classes=('a','b')")
    done, made = tpu(stand_in, tmp_path, states, [0], *arguments, TPU_SPOT="1")
    assert done.returncode == 0, done.stderr
    create, copy, install, train = made
    assert create == (
        "queued-resources create pod --zone=zone-a --node-id=pod --accelerator-type=v5litepod-16 "
        "--runtime-version=v2-alpha-tpuv5-lite --spot"
    )
    assert copy == f"tpu-vm scp --recurse {ROOT} pod:promptmad --zone=zone-a --worker=all"
    assert install.startswith("tpu-vm ssh pod --zone=zone-a --worker=all --command=cd promptmad")
    assert train.endswith(
        "exec .venv/bin/python -u -m promptmad_jax.train --distributed --config=x.py "
        r"--config.data.classes=\(\'a\'\,\'b\'\)"
    )


def test_tpu_begins_again_when_the_slice_is_taken_away(stand_in, tmp_path):
    states = ["ACTIVE", "ACTIVE", "SUSPENDED", "ACTIVE"]
    done, made = tpu(stand_in, tmp_path, states, [255, 0], "all")
    assert done.returncode == 0 and "status 255; restart 1" in done.stderr
    kinds = [" ".join(call.split()[:2]) for call in made]
    assert kinds[3:5] == ["queued-resources delete", "queued-resources create"]
    assert sum("promptmad_jax.train" in call for call in made) == 2


def test_tpu_does_not_repeat_a_mistake(stand_in, tmp_path):
    done, made = tpu(stand_in, tmp_path, ["ACTIVE"], [USER_ERROR_STATUS], "all")
    assert done.returncode == USER_ERROR_STATUS
    assert sum("promptmad_jax.train" in call for call in made) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "give create"), (("train", "--config=x"), "after --"), (("fly",), "fly: unknown")],
)
def test_tpu_mistakes(arguments, message):
    done = launch("tpu_pod.sh", *arguments, TPU_NAME="pod", TPU_ZONE="zone-a")
    assert done.returncode == 2 and message in done.stderr
