import csv
import gzip

from skrec.datasets._csv import read_csv


def test_fields_may_be_long_and_the_limit_of_the_process_stays(tmp_path):
    before = csv.field_size_limit()
    tags = "a tag, " * 30_000
    path = tmp_path / "texts.csv.gz"
    path.write_bytes(gzip.compress(f'item,tags\n7,"{tags}"\n'.encode()))
    assert read_csv(path, "item").loc[7, "tags"] == tags
    assert csv.field_size_limit() == before
