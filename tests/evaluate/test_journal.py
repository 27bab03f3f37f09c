"""The journal of an evaluation: what was written whole comes back, and nothing else is believed."""

import pytest

from hf_models.errors import InputError
from hf_models.evaluate.journal import Journal, journal_line

KEY = {"model": "a", "data": "b"}
RECORDS = {0: b"\x01\x00", 7: b"", 3: bytes(range(256)) * 40}


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results.csv"


@pytest.fixture
def path(results):
    """A journal of one process, of three batches of one image."""
    journal = Journal(results, KEY, resume=False)
    journal.start(0)
    for index, record in RECORDS.items():
        journal.write({index: record}, 0.25)
    journal.close()
    return results.with_name("results.csv.progress-0.jsonl")


def test_records_of_any_length_come_back(results, path):
    journal = Journal(results, KEY, resume=True)
    assert (journal.done, journal.seconds) == (RECORDS, 0.75)
    journal.start(1)  # another process, so that there are two files
    journal.write({1: b"x", 5: b"y"}, 1)
    assert Journal(results, KEY, resume=True).done == RECORDS | {1: b"x", 5: b"y"}
    journal.remove()
    assert not any(results.parent.iterdir())


def test_a_line_that_was_cut_off_is_dropped(results, path):
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for size in (last, last + 1, last + 11, (last + len(whole)) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        journal = Journal(results, KEY, resume=True)
        assert journal.done == {0: RECORDS[0], 7: RECORDS[7]}
        journal.start(0)
        journal.write({3: RECORDS[3]}, 0.25)
        journal.close()
        assert path.read_bytes() == whole


@pytest.mark.parametrize("left", ["", '["0123'])
def test_a_first_line_that_was_cut_off_starts_anew(results, path, left):
    path.write_text(left)
    journal = Journal(results, KEY, resume=True)
    assert journal.done == {}
    journal.start(0)
    journal.write({0: b"x"}, 1)
    assert Journal(results, KEY, resume=True).done == {0: b"x"}


def test_nothing_behind_a_changed_byte_is_believed(results, path):
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for batch, known in ((1, {}), (2, {0: RECORDS[0]}), (3, {0: RECORDS[0], 7: RECORDS[7]})):
        place = len(b"".join(lines[:batch])) + len(lines[batch]) // 2
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert Journal(results, KEY, resume=True).done == known


@pytest.mark.parametrize(
    "batch",
    [
        {"seconds": 1e10, "records": []},
        {"seconds": float("nan"), "records": []},
        {"seconds": 1, "records": [[-1, "AA=="]]},
        {"seconds": 1, "records": [["0", "AA=="]]},
        {"seconds": 1, "records": [[0, "A"]]},
        {"seconds": 1, "records": [[0, 1]]},
        {"seconds": 1, "records": [[0]]},
        {"seconds": 1},
        [],
    ],
)
def test_a_batch_that_nobody_wrote_is_one_line(results, path, batch):
    path.write_bytes(journal_line(KEY) + journal_line(batch))
    with pytest.raises(InputError, match=r"damaged\. Delete it, and start without --resume\.$"):
        Journal(results, KEY, resume=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"model":"a","data":"b"}\n{"seconds":1,"counts":[[0,1,1]]}\n', "written by an earlier version. Delete it"),
        (b'["01234567",{"model":"a","data":"b"}]\n', "damaged. Delete it"),
        (b"\n", "damaged. Delete it"),
        (journal_line([]), "damaged. Delete it"),
        (journal_line({"model": "a"}), r"belongs to another evaluation \(data differs\)"),
        (None, "damaged. Delete it"),
    ],
)
def test_what_is_no_journal_is_one_line_and_stays(results, path, content, message):
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        Journal(results, KEY, resume=True)
    assert content is None or path.read_bytes() == content


def test_without_results_nothing_is_kept():
    journal = Journal(None, KEY, resume=False)
    journal.start(0)
    journal.write({0: b"x"}, 1)
    journal.remove()
    assert journal.done == {} and journal.file is None
