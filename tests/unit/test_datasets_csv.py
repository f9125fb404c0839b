"""A user's CSV file: what its columns may mean, and line and column of what cannot be read."""

import numpy as np
import pytest

from paramserver.datasets import load, read_csv
from paramserver.datasets.csv_file import load_csv
from paramserver.errors import Fault, RequestError


@pytest.fixture
def write(tmp_path):
    def to_file(text):
        (tmp_path / "own.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / "own.csv"

    return to_file


def test_the_last_column_is_the_label(write):
    data = read_csv(write("a,b,kind\n1,2,0\n3.5,-4e1,1\n0,0,3\n"))
    np.testing.assert_array_equal(data.inputs, np.float32([[1, 2], [3.5, -40], [0, 0]]))
    assert data.inputs.dtype == np.float32
    assert (data.labels.tolist(), data.classes, data.task) == ([0, 1, 3], 4, "classification")
    assert (data.class_names, data.name) == ((), "own.csv")


@pytest.mark.parametrize(
    ("header", "column"),
    [("label,a,b", 0), ("a,Target,b", 1), (" CLASS ,a,b", 0), ("a,y,b", 1), ("a,label,y", 1), ("a,b,c", 2)],
)
def test_a_named_label_may_stand_anywhere(write, header, column):
    data = read_csv(write(f"{header}\n0,1,2\n1,0,1\n"))
    assert data.labels.tolist() == [[0, 1, 2][column], [1, 0, 1][column]]
    assert data.inputs[0].tolist() == [value for place, value in enumerate([0, 1, 2]) if place != column]


def test_text_is_classes_in_sorted_order(write):
    data = read_csv(write('a,label\n1,cat\n2,"a, b"\n3, cat\n4,dog\n'))
    assert data.class_names == ("a, b", "cat", "dog")
    assert data.labels.tolist() == [1, 0, 1, 2]


def test_whole_numbers_that_do_not_begin_at_zero_are_sorted_as_numbers(write):
    data = read_csv(write("a,label\n1,10\n2,-1\n3,9.0\n4,70000\n"))
    assert data.class_names == ("-1", "9", "10", "70000")
    assert data.labels.tolist() == [2, 0, 1, 3]


def test_a_fraction_makes_it_regression(write):
    data = read_csv(write("a,price\n1,10\n2,-1.5\n"))
    assert (data.task, data.classes, data.labels.dtype) == ("regression", 0, np.float32)
    assert data.labels.tolist() == [10.0, -1.5]


def test_known_classes_keep_their_numbers(write):
    path = write("a,label\n1,dog\n2,dog\n")
    assert read_csv(path, class_names=("cat", "dog")).labels.tolist() == [1, 1]
    with pytest.raises(RequestError) as caught:
        read_csv(path, class_names=("cat", "cow"))
    assert str(caught.value) == (
        f"{path}, line 2, column 2 ('label'): expected one of the classes cat, cow, but found 'dog'."
    )


def test_spreadsheets_marks_quotes_and_empty_lines_are_fine(write):
    data = read_csv(write(b'\xef\xbb\xbfa,b,label\r\n"1"," 2 ",0\r\n\r\n3,4,1\r\n'))
    np.testing.assert_array_equal(data.inputs, np.float32([[1, 2], [3, 4]]))


def test_a_csv_is_loaded_and_cut(write):
    path = write("a,b,label\n" + "".join(f"{row},{row * 2},{'xyz'[row % 3]}\n" for row in range(90)))
    for splits in (load(path), load("own.csv", path.parent), load_csv(path)):
        assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [66, 6, 18]
        assert splits.test.class_names == ("x", "y", "z")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty: expected a header row"),
        ("\n\n", "is empty: expected a header row"),
        ("a,b,label\n", "has a header row, but no samples below it"),
        ("label\n1\n", "but has one column"),
        ("a;b;label\n1;2;0\n", "should be separated by commas, but its header is 'a;b;label'"),
        ("a\tlabel\n1\t0\n", "should be separated by commas"),
        ("1,2,0\n3,4,1\n", "should begin with a header row of names, but it begins with the numbers 1, 2, 0"),
        (",a,label\n0,1,0\n", "column 1 of the header has no name. Name it, or leave the column out"),
        ("a,a,label\n0,1,0\n", "two columns are named 'a'"),
        ("class,a,label\n0,1,0\n", "both 'class' and 'label' name a column of labels"),
        ("a,b,label\n1,2,0\n1,2\n", ", line 3: expected 3 cells as in the header, but found 2."),
        ("a,b,label\n1,2,0\n1,2,0,\n", ", line 3: expected 3 cells as in the header, but found 4."),
        ("a,b,label\n1,2,0\n1,two,0\n", ", line 3, column 2 ('b'): expected a number, but found 'two'."),
        ("a,b,label\n\n1,,0\n", ", line 3, column 2 ('b'): expected a number, but found nothing."),
        ("label,b\n1,1_000\n", ", line 2, column 2 ('b'): expected a number, but found '1_000'."),
        ('label,b\n1,"1,5"\n', "expected a number, but found '1,5'."),
        ("a,b,label\n1,2,0\n1,nan,1\n", ", line 3, column 2 ('b'): expected a finite number"),
        (
            "label,b\n1,1e300\n",
            ", line 2, column 2 ('b'): expected a finite number within float32, but found 'inf'",
        ),
        ("a,label\n1,\n", ", line 2, column 2 ('label'): expected a label, but found nothing."),
        (
            "a,label\n1,0.5\n2,nan\n",
            ", line 3, column 2 ('label'): expected a finite label, but found 'nan'.",
        ),
        (
            "a,label\n1,1\n2,1e300\n",
            ", line 3, column 2 ('label'): expected a finite label, but found '1e300'.",
        ),
        ("a,label\n1,cat\n2,cat\n", "at least two classes"),
        ("a,label\n1,2\n2,2\n", "at least two classes"),
        ('a,label\n1,2\n"2,3\n', ", line 3: this is no sound CSV (unexpected end of data)."),
        ('a,label\n1,2\n"2"x,3\n', ", line 3: this is no sound CSV"),
        (b"a,label\n1,2\n2,\xe9\n", ", line 3: expected UTF-8 text, but found the byte 0xe9."),
    ],
)
def test_a_file_that_is_no_data_set_gets_a_sentence(write, text, sentence):
    with pytest.raises(RequestError) as caught:
        read_csv(write(text))
    assert "own.csv" in str(caught.value)
    assert sentence in str(caught.value)


def test_the_line_is_the_one_an_editor_shows(write):
    path = write('a,b,label\n1,2,"two\nlines"\n1,x,0\n')
    with pytest.raises(RequestError, match="line 4, column 2"):
        read_csv(path)


def test_limits_and_missing_files_get_a_sentence(write, tmp_path):
    with pytest.raises(RequestError, match="has 16 bytes, more than the limit of 10") as caught:
        read_csv(write("a,label\n1,0\n2,1\n"), bytes_max=10)
    assert caught.value.fault is Fault.EXHAUSTED
    with pytest.raises(RequestError, match="There is no file") as caught:
        load(tmp_path / "missing.csv")
    assert caught.value.fault is Fault.UNKNOWN
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(RequestError, match="cannot be read: Is a directory"):
        load(tmp_path / "folder.csv")
