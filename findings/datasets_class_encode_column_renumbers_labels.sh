#!/usr/bin/env bash
# class_encode_column turns integer labels into other integers once there are more than ten classes.
#
# Expected: labels 0..11, already consecutive integers, stay what they are. Seen: they are turned into strings and
# sorted as such, so 2 becomes 4 and 10 becomes 2; the names keep the truth, the numbers do not.
# Who meets it: whoever makes a column of numbers a ClassLabel, which stratified splits demand, and then evaluates a
# model that was trained on the numbers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check datasets==5.2.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import datasets

datasets.disable_progress_bars()
encoded = datasets.Dataset.from_dict({"label": list(range(12))}).class_encode_column("label")
print("datasets", datasets.__version__)
print("expected:", list(range(12)))
print("seen:", list(encoded["label"]), "with names", encoded.features["label"].names)
assert list(encoded["label"]) == [0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3], "the encoding has changed"
PYTHON
